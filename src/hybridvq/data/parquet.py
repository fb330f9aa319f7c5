"""Parquet files in the layout of the Hugging Face hub: a column of encoded images."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridvq.data.decode import UnreadableError, image_extensions
from hybridvq.data.images import Split
from hybridvq.data.labels import LABEL_COLUMN, LabelColumn, Labels, from_columns, is_label, read_column
from hybridvq.data.listing import Listing, note, note_left_out
from hybridvq.data.splits import hold_out, is_named, other_split, split_files
from hybridvq.documents import parse_json
from hybridvq.errors import DataError


class ParquetRecords:
    """The rows of parquet files, one file after the other.

    Rows are read a row group at a time and the last group is kept, so that reading in order is fast. In
    random order each row costs its whole group: write large sets in groups of some 100 rows, as on the hub.
    """

    def __init__(self, name: str, files: list[Path], others: list[Path]) -> None:
        """Read the footers of `files`; `others` are those of the other split, for its classes.

        Raises:
            DataError: a file is damaged or has no column of images.
        """
        self.name = name
        self._files, self._others = files, others
        self._folder = common_folder([*files, *others])
        self.location = str(self._folder)
        self._footers = [read_footer(file) for file in files]
        self._columns = [image_column(file, footer) for file, footer in zip(files, self._footers, strict=True)]
        groups = [
            (file, group, footer.row_group(group).num_rows)
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        ]
        self._groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self._group_starts = np.cumsum([0, *self._groups[:, 2]])
        self._file_starts = np.cumsum([0] + [footer.num_rows for footer in self._footers])
        self._loaded: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __len__(self) -> int:
        return int(self._file_starts[-1])

    def name_of(self, record: int) -> str:
        file = int(np.searchsorted(self._file_starts, record, side="right")) - 1
        return f"{relative(self._files[file], self._folder)} row {record - int(self._file_starts[file])}"

    def read(self, record: int) -> bytes | Path:
        group = int(np.searchsorted(self._group_starts, record, side="right")) - 1
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = group, self._read_group(group)
        value = self._loaded[1][record - int(self._group_starts[group])].as_py()
        return encoded_image(value, self._files[int(self._groups[group, 0])].parent)

    def identity(self, selected: np.ndarray) -> Iterator[str]:
        for file, footer in zip(self._files, self._footers, strict=True):
            yield f"{relative(file, self._folder)}\t{file.stat().st_size}\t{footer.num_rows}"
        yield selected.astype("<i8").tobytes().hex()

    def labels(self) -> Labels | None:
        return from_columns([read_labels(file) for file in self._files], [read_labels(file) for file in self._others])

    def _read_group(self, group: int) -> Any:
        import pyarrow.parquet

        file, within, _ = self._groups[group].tolist()
        try:
            # Opened anew each time: an open file survives neither pickling nor the fork of a data loader.
            with pyarrow.parquet.ParquetFile(
                self._files[file], metadata=self._footers[file], memory_map=True
            ) as opened:
                name = self._columns[file]
                return opened.read_row_group(within, [name], use_threads=False).column(name)
        # Damaged pages surface as ArrowInvalid, OSError or MemoryError, depending on the byte.
        except Exception as error:
            raise UnreadableError(f"damaged parquet data: {first_line(error)}") from None


def parquet_of(folder: Path, found: Listing) -> list[Path]:
    """The parquet files of a folder that are to be read: those with images, or all where there is nothing else."""
    if shards := image_shards(found.parquet):
        note_left_out(folder, "parquet", found.tar + found.images)
        return shards
    return [] if found.tar or found.images else found.parquet


def image_shards(files: list[Path]) -> list[Path]:
    """Leave out the parquet files that have no column of images, such as the tables of a downloader.

    One that is damaged, or is named as part of a split beside files with images, stays, to be refused when it is read.
    """
    if not any(map(_may_hold_images, files)):
        return []
    plain = [file for file in files if not is_named(file.name) and not _may_hold_images(file)]
    if plain:
        note(f"{len(plain)} parquet file(s) without a column of images are left out, such as {plain[0]}")
    return [file for file in files if file not in plain]


def _may_hold_images(file: Path) -> bool:
    try:
        footer = read_footer(file)
    except DataError:
        return True
    try:
        image_column(file, footer)
    except DataError:
        return False
    return True


def common_folder(files: list[Path]) -> Path:
    """Return the folder that all files are named relative to: the one they lie in, or their lowest common one."""
    return Path(os.path.commonpath([file.parent for file in files]))


def relative(file: Path, folder: Path) -> str:
    """Return the path of a file below a folder, with forward slashes."""
    return file.relative_to(folder).as_posix()


def open_parquet(path: Path, files: list[Path], split: Split) -> tuple[ParquetRecords, np.ndarray]:
    """Open parquet files and find the rows of a split.

    The split is that of `split_files`, or else 10% of the rows are held out by a hash of the row number.

    Args:
        path: the folder in which the files were found, or the one file.
        files: what is read, in order.
        split: "train" or "test".

    Raises:
        DataError: a file is damaged, has no column of images, or there are too few rows.
    """
    name = f"{path.resolve().stem if path.is_file() else path.resolve().name} (parquet)"
    sides = shard_sides(path, files)
    if sides is None:
        records = ParquetRecords(name, files, [])
        return records, hold_out(map(str, range(len(records))), split, str(path))
    records = ParquetRecords(name, sides[split], sides[other_split(split)])
    if not len(records):
        raise DataError(f"{sides[split][0]} has no rows; give a file with images")
    return records, np.arange(len(records))


def shard_sides(path: Path, files: list[Path]) -> dict[Split, list[Path]] | None:
    """Return the shards of each side, or None where their names and folders do not tell them; see `split_files`."""
    folder = path if path.is_dir() else path.parent
    sides = split_files([relative(file, folder) for file in files], str(path), shards=True)
    return sides and {side: [folder / name for name in names] for side, names in sides.files.items()}


def encoded_image(value: Any, folder: Path) -> bytes | Path:
    """Return the image in a row of a column of images, or its file if the row holds a path alone.

    Args:
        value: bytes, or {"bytes": bytes or None, "path": a path relative to `folder` or None}.
        folder: where the table lies. No path may lead out of it, for a table may be a stranger's.

    Raises:
        UnreadableError: the row holds neither, or its path leads out of the folder.
    """
    content, path = (value["bytes"], value.get("path")) if isinstance(value, dict) else (value, None)
    if content is not None:
        return content
    if not path:
        raise UnreadableError("no bytes")
    file = Path(os.path.abspath(folder / path))
    if not file.is_relative_to(os.path.abspath(folder)):
        raise UnreadableError(f"no bytes, and its path {path} leads out of the folder")
    return file


def read_footer(file: Path) -> Any:
    """Return a file's `pyarrow.parquet.FileMetaData`; raises DataError."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(file, memory_map=True)
    # ArrowInvalid, OSError and others, depending on what is wrong with the file.
    except Exception as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else first_line(error)
        raise DataError(f"{file} cannot be read as a parquet file ({reason}); download or write it again") from None


def image_column(file: Path, footer: Any) -> str:
    """Return the name of a file's column of encoded images; raises DataError."""
    import pyarrow
    import pyarrow.parquet

    # Not footer.schema, which refers back to its footer and so keeps it until the next garbage collection.
    schema = pyarrow.parquet.ParquetSchema(footer).to_arrow_schema()
    name = find_image_column(schema.names, str(file))
    kind = schema.field(name).type
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_binary_view(kind)):
        raise DataError(
            f"{file} has a column '{name}' of type {schema.field(name).type}; it must hold encoded images, "
            "as binary or as struct<bytes: binary, path: string>"
        )
    return name


def find_image_column(columns: Sequence[str], location: str) -> str:
    """Return the column of images: `image`, `img`, or else the first that is called like an ending, such as `jpg`.

    Upper case counts as lower case.

    Raises:
        DataError: there is none, or there are two.
    """
    lower = [column.lower() for column in columns]
    endings = (name for name in lower if f".{name}" in image_extensions())
    name = next((name for name in ("image", "img", *endings) if name in lower), None)
    if name is None:
        raise DataError(f"{location} has the columns {list(columns)}; name its column of images 'image' or 'img'")
    if lower.count(name) > 1:
        raise DataError(f"{location} has {lower.count(name)} columns '{name}'; name its one column of images so")
    return columns[lower.index(name)]


def read_labels(file: Path) -> LabelColumn | None:
    """Return the column `label` of a file, if it is one of class labels, and nothing else of it; raises DataError."""
    import pyarrow.parquet

    footer = read_footer(file)
    schema = footer.schema.to_arrow_schema()
    if schema.names.count(LABEL_COLUMN) > 1:
        raise DataError(f"{file} has {schema.names.count(LABEL_COLUMN)} columns '{LABEL_COLUMN}'; keep one of them")
    if LABEL_COLUMN not in schema.names or not is_label(schema.field(LABEL_COLUMN).type):
        return None
    try:
        with pyarrow.parquet.ParquetFile(file, metadata=footer, memory_map=True) as opened:
            values = opened.read([LABEL_COLUMN], use_threads=False).column(LABEL_COLUMN)
        if len(values) != footer.num_rows:
            raise ValueError(f"{len(values)} of {footer.num_rows} rows could be read")
    # Damaged pages surface as ArrowInvalid, OSError or MemoryError, depending on the byte.
    except Exception as error:
        raise DataError(
            f"the column '{LABEL_COLUMN}' of {file} cannot be read ({first_line(error)}); download or write it again"
        ) from None
    return read_column(values, class_names(schema), str(file))


def class_names(schema: Any) -> tuple[str, ...] | None:
    """Return the names that `datasets` writes into the schema of a file whose labels it knows as `ClassLabel`."""
    try:
        names = parse_json(schema.metadata[b"huggingface"])["info"]["features"][LABEL_COLUMN]["names"]
    except (TypeError, KeyError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
