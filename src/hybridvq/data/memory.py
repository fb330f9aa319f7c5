"""Decoded pictures in memory, and how much of it they may take."""

from threading import Lock

import numpy as np

_ASPECT_ALLOWANCE = 1.5  # photographs are seldom longer than 3:2, and only the short side is `size`


def expected_bytes(count: int, size: int) -> float:
    """What so many pictures take, going by photographs."""
    return count * 3 * size**2 * _ASPECT_ALLOWANCE


class Room:
    """Memory for decoded pictures, of so many bytes, counted while threads decode them; once full, it stays full."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = Lock()

    @property
    def full(self) -> bool:
        return self._left < 0

    def take(self, size: int) -> bool:
        """Take `size` bytes; False if they are no longer there."""
        with self._lock:
            self._left -= size
        return not self.full


class PixelMemory:
    """Pictures of any shape in few large arrays.

    Thousands of small arrays would each be copied into every data loader process, as Python writes to an
    object's reference count whenever it is looked at.
    """

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._places: list[np.ndarray] = []  # of each picture: chunk, offset in it, height, width
        self._table = np.zeros((0, 4), dtype=np.int64)

    def extend(self, pictures: list[np.ndarray]) -> None:
        """Append pictures, each (H, W, 3) uint8."""
        if not pictures:
            return
        offsets = np.cumsum([0] + [picture.size for picture in pictures])
        places = [
            (len(self._chunks), offset, *picture.shape[:2]) for offset, picture in zip(offsets, pictures, strict=False)
        ]
        self._chunks.append(np.concatenate([picture.reshape(-1) for picture in pictures]))
        self._places.append(np.array(places, dtype=np.int64))
        self._table = np.concatenate(self._places)

    def __getitem__(self, index: int) -> np.ndarray:
        chunk, offset, height, width = self._table[index].tolist()
        return self._chunks[chunk][offset : offset + height * width * 3].reshape(height, width, 3)
