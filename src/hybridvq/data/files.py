"""Folders of image files, and the mini-ImageNet layout of one folder and a table for each split."""

import csv
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from hybridvq.data.decode import image_extensions
from hybridvq.data.images import Split
from hybridvq.data.labels import LABEL_COLUMN, Labels, numbered
from hybridvq.data.splits import TEST_NAMES, TRAIN_NAME, hold_out, named_sides, other_split
from hybridvq.errors import DataError


class FileRecords:
    """Image files, named relative to a folder with forward slashes."""

    def __init__(self, name: str, folder: Path, files: list[str], labels: Callable[[], Labels | None]) -> None:
        self.name = name
        self.location = str(folder)
        self.labels = labels
        self._folder = folder
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def name_of(self, record: int) -> str:
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
    files = _image_files(folder, within)
    if not files:
        raise DataError(f"{within} has no image files; give a folder of images (.jpg, .png, ...) or of .parquet files")
    selected = np.arange(len(files)) if sides else hold_out(files, split, str(folder))
    labels = partial(class_folders, folder, files, sides[other_split(split)] if sides else None)
    return FileRecords(_short_name(folder), folder, files, labels), selected


def class_folders(folder: Path, files: list[str], other: Path | None) -> Labels | None:
    """Take the folder of each image for its class, if there are at least two and all images lie right in one.

    Args:
        folder: the data set.
        files: the images of one split, relative to it, or all images if it has no folder for each split.
        other: the folder of the other split, if there is one.
    """
    others = _image_files(folder, other) if other else []
    depth = 2 if other else 1  # "train/cat/1.png" or "cat/1.png"
    if any(file.count("/") != depth for file in chain(files, others)):
        return None
    labels = numbered([file.split("/")[-2] for file in files], (file.split("/")[-2] for file in others))
    return labels if len(labels.classes) > 1 else None


def is_mini_imagenet(folder: Path) -> bool:
    """Tell whether a folder holds `images/` and `train.csv`."""
    return (folder / "images").is_dir() and (folder / "train.csv").is_file()


def open_mini_imagenet(folder: Path, split: Split) -> tuple[FileRecords, np.ndarray]:
    """Read the file names of a split from its table, `train.csv` or `test.csv`, whose column is `filename`.

    Raises:
        DataError: the table is missing or empty, is not text, or has no such column.
    """
    table = folder / f"{split}.csv"
    labelled = read_table(table)
    if not labelled:
        raise DataError(f"{table} lists no image; give the mini-ImageNet file")
    labels = partial(table_labels, folder, list(labelled.values()))
    return FileRecords(_short_name(folder), folder / "images", list(labelled), labels), np.arange(len(labelled))


def table_labels(folder: Path, own: list[str]) -> Labels | None:
    """Number the classes of a table among those of all tables, as each has classes of its own."""
    if not all(own):
        return None
    tables = [folder / f"{name}.csv" for name in ("train", "val", "test")]
    found = chain.from_iterable(read_table(table).values() for table in tables if table.exists())
    return numbered(own, filter(None, found))


def read_table(table: Path) -> dict[str, str]:
    """Return {file name: class} in the order of a table, each image once; '' where it gives no class.

    Raises:
        DataError: it is missing, is not text, or has no column `filename`.
    """
    labelled: dict[str, str] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = list(reader.fieldnames or [])
            if "filename" not in columns:
                raise DataError(f"{table} has the columns {columns}, not 'filename'; name its column of files so")
            for row in reader:
                if row["filename"]:
                    labelled.setdefault(row["filename"], row.get(LABEL_COLUMN) or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError(f"{table} cannot be read as a table ({reason}); give the mini-ImageNet file") from None
    return labelled


def _short_name(folder: Path) -> str:
    return f"{folder.resolve().name} (folder)"


def _image_files(folder: Path, within: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in _images_below(within))


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
