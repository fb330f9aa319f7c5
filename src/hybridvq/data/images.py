"""What every source becomes: a map-style set of images from which square crops are cut.

open_images ──► Images ─┬─ PhotoTiles      photographs at native resolution      photos.py
                        └─ RecordImages    one record, one image, short side = size
                                ▲
                             Records ─┬─ FileRecords       folders.py
                                      ├─ ParquetRecords    parquet.py
                                      └─ HubRecords        hub.py
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from hybridvq.data.decode import UnreadableError, decode, fit, without_warnings
from hybridvq.data.labels import Labels
from hybridvq.data.memory import PixelMemory, Room, expected_bytes
from hybridvq.errors import DataError
from hybridvq.threads import available_cores

Split = Literal["train", "test"]

MEMORY_BUDGET = 1 << 30
"""Bytes of decoded pixels up to which a set is kept in memory; larger sets decode on access."""

_CHUNK = 512  # images decoded, and stored, together


class Images(ABC):
    """Images of one split, of which square crops can be cut in any order.

    Attributes:
        name: what is read, in short; never an absolute path.
        split: "train" or "test".
        size: side of a crop, in pixels.
        fingerprint: 16 hexadecimal digits of a SHA-256 over the identity of what is read; the same on every
            machine and wherever the files lie.
        skipped: one line "name: reason" for each image left out as unreadable.
        workers: processes that read and decode for each training process, 0 for the training process itself.
    """

    name: str
    split: Split
    size: int
    fingerprint: str
    skipped: list[str]
    workers: int = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, the same for both splits; None where the images have none.

        Raises:
            DataError: labels are there but cannot be read.
        """
        return None

    @property
    def class_ids(self) -> np.ndarray | None:
        """The place of each image's class in `classes`, (N,) int64; None where the images have none."""
        return None

    @abstractmethod
    def pixels(self, index: int) -> np.ndarray:
        """Return the picture that image `index` is cut from, (H, W, 3) uint8 with H, W >= size.

        Raises:
            DataError: it cannot be decoded (only for sets too large to have been checked when opened).
        """

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        """Return (top, left) of the deterministic crop in a picture of height x width: the center."""
        return (height - self.size) // 2, (width - self.size) // 2

    def crop(self, index: int, generator: np.random.Generator | None) -> np.ndarray:
        """Cut image `index`: (size, size, 3) uint8, an array of its own.

        With a generator, a uniformly random crop, mirrored left to right half of the time; three numbers are
        drawn from it. With None, the deterministic crop, never mirrored.

        Raises:
            IndexError: index is not in [0, len).
            DataError: see `pixels`.
        """
        return self.crop_at(index, None if generator is None else generator.random(3)).copy()

    def crop_at(self, index: int, draw: np.ndarray | None) -> np.ndarray:
        """Cut image `index` as `crop` does, from the numbers of `random_crop`.

        The result may be a view of the set's memory: copy it, never write to it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        picture = self.pixels(index)
        if draw is not None:
            return random_crop(picture, self.size, draw)
        top, left = self.origin(index, *picture.shape[:2])
        return picture[top : top + self.size, left : left + self.size]


class Records(Protocol):
    """Encoded images by number, before any is decoded."""

    name: str
    location: str

    def __len__(self) -> int: ...

    def name_of(self, record: int) -> str:
        """Return the name of a record, relative to `location`."""

    def read(self, record: int) -> bytes | Path:
        """Return the encoded image, or the file that holds it; raises UnreadableError."""

    def identity(self, selected: np.ndarray) -> Iterable[str]:
        """Return what tells these records from others, in lines that do not depend on the machine."""

    def labels(self) -> Labels | None:
        """Read the class labels of all records, without reading an image; None where there are none."""


class RecordImages(Images):
    """One image a record, its short side resized to `size`; kept in memory if all fit `MEMORY_BUDGET`."""

    def __init__(
        self,
        records: Records,
        selected: np.ndarray,
        split: Split,
        size: int,
        *,
        short_side: int | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        """Open the records numbered `selected`, in that order, and decode them now if they fit in memory.

        With a `short_side`, images keep up to so many pixels along it, see `fit`.

        Raises:
            DataError: a record cannot be decoded and skip_unreadable is off, or none can be.
        """
        self.name, self.split, self.size, self.short_side = records.name, split, size, short_side
        self.skipped = []
        self._records = records
        self._selected = selected
        self._memory: PixelMemory | None = None
        fits = expected_bytes(len(selected), short_side or size) <= MEMORY_BUDGET
        if fits or skip_unreadable:
            self._decode_all(Room(MEMORY_BUDGET if fits else 0), skip_unreadable)
        sides = [f"short side {short_side}"] if short_side else []
        self.fingerprint = fingerprint([split, *sides, *records.identity(self._selected)])

    def __len__(self) -> int:
        return len(self._selected)

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None if self._labels is None else self._labels.classes

    @property
    def class_ids(self) -> np.ndarray | None:
        return None if self._labels is None else self._labels.ids

    @cached_property
    def _labels(self) -> Labels | None:
        labels = self._records.labels()
        return labels and Labels(labels.classes, labels.ids[self._selected])

    def pixels(self, index: int) -> np.ndarray:
        if self._memory is not None:
            return self._memory[index]
        record = int(self._selected[index])
        with without_warnings():
            try:
                return self._decode(self._records.read(record))
            except UnreadableError as error:
                raise self._error(record, error) from None

    def _decode_all(self, room: Room, skip_unreadable: bool) -> None:
        memory = PixelMemory()
        good: list[int] = []
        for records, results in self._decoded_chunks(room):
            for record, result in zip(records, results, strict=True):
                if not isinstance(result, UnreadableError):
                    good.append(record)
                elif skip_unreadable:
                    self.skipped.append(f"{self._records.name_of(record)}: {result}")
                else:
                    raise self._error(record, result)
            if not room.full:
                memory.extend([result for result in results if isinstance(result, np.ndarray)])
            elif skip_unreadable:
                memory = PixelMemory()
            else:
                return
        if not good:
            raise DataError(
                f"{self._records.location} has no readable image in its {self.split} split "
                f"({len(self.skipped)} skipped, the first is {self.skipped[0]}); give another data set"
            )
        self._selected = np.array(good, dtype=np.int64)
        self._memory = None if room.full else memory

    def _decoded_chunks(self, room: Room) -> Iterator[tuple[list[int], list[np.ndarray | UnreadableError | None]]]:
        # Reading stays on this thread, for records remember what they read last; decoding releases the GIL.
        with without_warnings(), ThreadPoolExecutor(min(8, available_cores())) as pool:
            for start in range(0, len(self._selected), _CHUNK):
                records = self._selected[start : start + _CHUNK].tolist()
                sources = [_read_or_error(self._records, record) for record in records]
                slices = [sources[at : at + 32] for at in range(0, len(sources), 32)]
                done = pool.map(partial(self._decode_slice, room=room), slices)
                yield records, [result for results in done for result in results]

    def _decode_slice(
        self, sources: list[bytes | Path | UnreadableError], room: Room
    ) -> list[np.ndarray | UnreadableError | None]:
        """The picture of each source, or why there is none; None for one that has been decoded and finds no room."""
        results: list[np.ndarray | UnreadableError | None] = []
        for source in sources:
            try:
                picture = source if isinstance(source, UnreadableError) else self._decode(source)
                results.append(picture if isinstance(picture, UnreadableError) or room.take(picture.nbytes) else None)
            except UnreadableError as error:
                results.append(error)
        return results

    def _decode(self, source: bytes | Path) -> np.ndarray:
        return fit(decode(source), self.size, self.short_side)

    def _error(self, record: int, reason: UnreadableError) -> DataError:
        where = f"{self._records.location}/{self._records.name_of(record)}"
        return DataError(f"{where} cannot be read as an image ({reason}); remove it or pass --skip-unreadable")


def random_crop(picture: np.ndarray, size: int, draw: np.ndarray) -> np.ndarray:
    """Return a view of a square of (H, W, 3) pixels, placed and mirrored by three numbers in [0, 1).

    A fourth says how many times larger the square is, as far as it fits, that is cut out and reduced to the size.
    """
    height, width, _ = picture.shape
    side = size if len(draw) == 3 else min(round(size * draw[3]), height, width)
    top, left = int(draw[0] * (height - side + 1)), int(draw[1] * (width - side + 1))
    window = picture[top : top + side, left : left + side]
    if side != size:
        window = np.asarray(Image.fromarray(window).resize((size, size), Image.Resampling.LANCZOS))
    return window if draw[2] < 0.5 else window[:, ::-1]


def fingerprint(lines: Iterable[str]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:16]


def _read_or_error(records: Records, record: int) -> bytes | Path | UnreadableError:
    try:
        return records.read(record)
    except UnreadableError as error:
        return error
