"""Folders of image files, and the mini-ImageNet layout of one folder and a table for each split."""

import csv
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from hybridvq.data.images import Split
from hybridvq.data.labels import LABEL_COLUMN, Labels, number_labels
from hybridvq.data.splits import hold_out, named_sides, other_split, split_files
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


def open_folder(folder: Path, found: list[Path], split: Split) -> tuple[FileRecords, np.ndarray]:
    """Describe the images `found` below a folder, in class folders or not, and the numbers of those in a split.

    The split is that of `split_files`, or else 10% of the images are held out by a hash of their relative paths.

    Raises:
        DataError: there is no image, or too few to hold one out.
    """
    files = [file.relative_to(folder).as_posix() for file in found]
    sides = split_files(files, str(folder), shards=False)
    if sides is None:
        _check_folders(folder, files)
        labels = partial(class_folders, files, [], None)
        return FileRecords(_short_name(folder), folder, files, labels), hold_out(files, split, str(folder))
    own, others = sides.files[split], sides.files[other_split(split)]
    labels = partial(class_folders, own, others, sides.at)
    return FileRecords(_short_name(folder), folder, own, labels), np.arange(len(own))


def _check_folders(folder: Path, files: list[str]) -> None:
    children = {child.name: child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")}
    sides = named_sides(children) or {}
    empty = [side for side in sides.values() if not any(file.startswith(f"{side.name}/") for file in files)]
    if empty or not files:
        where = empty[0] if empty else folder
        raise DataError(f"{where} has no image files; give a folder of images (.jpg, .png, ...) or of .parquet files")


def class_folders(files: list[str], others: list[str], split_at: int | None) -> Labels | None:
    """Take the folder of each image for its class, if there are at least two and all images lie right in one.

    Args:
        files: the images of one split, relative to the data set, or all images if it names no split.
        others: the images of the other split.
        split_at: which of their folders, 0 or 1, names the split.
    """
    folders = [[name for at, name in enumerate(f.split("/")[:-1]) if at != split_at] for f in chain(files, others)]
    # A set that lies one level down, as in "unpacked/train/cat/1.png".
    if split_at == 1 and len({names[0] for names in folders}) == 1 and any(len(names) > 1 for names in folders):
        folders = [names[1:] for names in folders]
    if any(len(names) != 1 for names in folders):
        return None
    classes = [names[0] for names in folders]
    labels = number_labels(classes[: len(files)], classes[len(files) :])
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
    return number_labels(own, filter(None, found))


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
