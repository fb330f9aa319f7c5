"""What every source becomes: a map-style set of images from which square crops are cut.

open_images ──► Images ─┬─ PhotoTiles      photographs at native resolution      photos.py
                        └─ RecordImages    one record, one image, short side = size
                                ▲
                             Records ─┬─ FileRecords       files.py
                                      ├─ ParquetRecords    parquet.py
                                      └─ HubRecords        hub.py
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from hybridvq.data.decode import UnreadableError, decode, fit, without_warnings
from hybridvq.data.labels import Labels
from hybridvq.errors import DataError

Split = Literal["train", "test"]

MEMORY_BUDGET = 1 << 30
"""Bytes of decoded pixels up to which a set is kept in memory; larger sets decode on access."""

_ASPECT_ALLOWANCE = 1.5  # photographs are seldom longer than 3:2, and only the short side is `size`
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
    """

    name: str
    split: Split
    size: int
    fingerprint: str
    skipped: list[str]

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
        """Of each image, the place of its class in `classes`, (N,) int64; None where the images have none."""
        return None

    @abstractmethod
    def pixels(self, index: int) -> np.ndarray:
        """Return the picture that image `index` is cut from, (H, W, 3) uint8 with H, W >= size.

        Raises:
            DataError: it cannot be decoded (only for sets too large to have been checked when opened).
        """

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        """Return (top, left) of the deterministic crop in a picture of height x width: the centre."""
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
        fits = len(selected) * 3 * (short_side or size) ** 2 * _ASPECT_ALLOWANCE <= MEMORY_BUDGET
        if fits or skip_unreadable:
            self._decode_all(keep=fits, skip_unreadable=skip_unreadable)
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

    def _decode_all(self, *, keep: bool, skip_unreadable: bool) -> None:
        memory = PixelMemory() if keep else None
        good: list[int] = []
        for records, results in self._decoded_chunks():
            pictures: list[np.ndarray] = []
            for record, result in zip(records, results, strict=True):
                if not isinstance(result, UnreadableError):
                    good.append(record)
                    pictures.append(result)
                elif skip_unreadable:
                    self.skipped.append(f"{self._records.name_of(record)}: {result}")
                else:
                    raise self._error(record, result)
            if memory is not None:
                memory.extend(pictures)
        if not good:
            raise DataError(
                f"{self._records.location} has no readable image in its {self.split} split "
                f"({len(self.skipped)} skipped, the first is {self.skipped[0]}); give another data set"
            )
        self._selected = np.array(good, dtype=np.int64)
        self._memory = memory

    def _decoded_chunks(self) -> Iterator[tuple[list[int], list[np.ndarray | UnreadableError]]]:
        # Reading stays on this thread, for records remember what they read last; decoding releases the GIL.
        with without_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(self._selected), _CHUNK):
                records = self._selected[start : start + _CHUNK].tolist()
                sources = [_read_or_error(self._records, record) for record in records]
                slices = [sources[at : at + 32] for at in range(0, len(sources), 32)]
                done = pool.map(self._decode_slice, slices)
                yield records, [result for results in done for result in results]

    def _decode_slice(self, sources: list[bytes | Path | UnreadableError]) -> list[np.ndarray | UnreadableError]:
        results: list[np.ndarray | UnreadableError] = []
        for source in sources:
            try:
                results.append(source if isinstance(source, UnreadableError) else self._decode(source))
            except UnreadableError as error:
                results.append(error)
        return results

    def _decode(self, source: bytes | Path) -> np.ndarray:
        return fit(decode(source), self.size, self.short_side)

    def _error(self, record: int, reason: UnreadableError) -> DataError:
        where = f"{self._records.location}/{self._records.name_of(record)}"
        return DataError(f"{where} cannot be read as an image ({reason}); remove it or pass --skip-unreadable")


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
