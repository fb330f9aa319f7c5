"""Folders of image files, and the mini-ImageNet layout of one folder and a table for each split."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hybridvq.data.decode import image_extensions
from hybridvq.data.images import Split
from hybridvq.data.splits import TEST_NAMES, TRAIN_NAME, hold_out, named_sides
from hybridvq.errors import DataError


class FileRecords:
    """Image files, named relative to a folder with forward slashes."""

    def __init__(self, name: str, folder: Path, files: list[str]) -> None:
        self.name = name
        self.location = str(folder)
        self._folder = folder
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def label(self, record: int) -> str:
        return self._files[record]

    def read(self, record: int) -> Path:
        return self._folder / self._files[record]

    def identity(self, selected: np.ndarray) -> Iterator[str]:
        for record in selected.tolist():
            path = self.read(record)
            try:
                yield f"{self._files[record]}\t{path.stat().st_size}"
            except OSError:
                raise DataError(f"{path} is listed but cannot be found; restore it or remove its entry") from None


def open_folder(folder: Path, split: Split) -> tuple[FileRecords, np.ndarray]:
    """Find the images below a folder, in class folders or not, and the numbers of those in a split.

    Subfolders 'train' and 'test' (or 'val', 'valid', 'validation') are the split if both are there; otherwise
    10% of the images are held out by a hash of their relative paths.

    Raises:
        DataError: there is no image, or too few to hold one out.
    """
    subfolders = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    sides = named_sides({name: subfolders[name] for name in (TRAIN_NAME, *TEST_NAMES) if name in subfolders})
    within = folder if sides is None else sides[split]
    files = [path.relative_to(folder).as_posix() for path in _images_below(within)]
    if not files:
        raise DataError(f"{within} has no image files; give a folder of images (.jpg, .png, ...) or of .parquet files")
    files.sort()
    selected = np.arange(len(files)) if sides else hold_out(files, split, str(folder))
    return FileRecords(_short_name(folder), folder, files), selected


def is_mini_imagenet(folder: Path) -> bool:
    """Tell whether a folder holds `images/` and `train.csv`."""
    return (folder / "images").is_dir() and (folder / "train.csv").is_file()


def open_mini_imagenet(folder: Path, split: Split) -> tuple[FileRecords, np.ndarray]:
    """Read the file names of a split from its table, `train.csv` or `test.csv`, whose column is `filename`.

    Raises:
        DataError: the table is missing or empty, is not text, or has no such column.
    """
    table = folder / f"{split}.csv"
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = list(reader.fieldnames or [])
            if "filename" not in columns:
                raise DataError(f"{table} has the columns {columns}, not 'filename'; name its column of files so")
            # Each image once, in the order of the table.
            files = list(dict.fromkeys(row["filename"] for row in reader if row["filename"]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError(f"{table} cannot be read as a table ({reason}); give the mini-ImageNet file") from None
    if not files:
        raise DataError(f"{table} lists no image; give the mini-ImageNet file")
    return FileRecords(_short_name(folder), folder / "images", files), np.arange(len(files))


def _short_name(folder: Path) -> str:
    return f"{folder.resolve().name} (folder)"


def _images_below(folder: Path) -> Iterator[Path]:
    extensions = image_extensions()
    seen: set[str] = set()
    # Class folders are often links into a larger set; remembering where each leads ends any circle.
    for parent, children, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        children[:] = sorted(child for child in children if not child.startswith("."))
        for file in files:
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in extensions:
                yield Path(parent, file)
