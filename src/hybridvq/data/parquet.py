"""Parquet files in the layout of the Hugging Face hub: a column of encoded images."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hybridvq.data.decode import UnreadableError
from hybridvq.data.images import Split
from hybridvq.data.labels import LABEL_COLUMN, Column, Labels, from_columns, is_label, read_column
from hybridvq.data.splits import hold_out, named_sides, other_split
from hybridvq.documents import parse_json
from hybridvq.errors import DataError

IMAGE_COLUMNS = ("image", "img")
"""Names of the column of images; of those present the first is used."""


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
        self.location = str(files[0].parent)
        self._files, self._others = files, others
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
        return f"{self._files[file].name} row {record - int(self._file_starts[file])}"

    def read(self, record: int) -> bytes:
        group = int(np.searchsorted(self._group_starts, record, side="right")) - 1
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = group, self._read_group(group)
        value = self._loaded[1][record - int(self._group_starts[group])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise UnreadableError("no bytes")
        return data

    def identity(self, selected: np.ndarray) -> Iterator[str]:
        for file, footer in zip(self._files, self._footers, strict=True):
            yield f"{file.name}\t{file.stat().st_size}\t{footer.num_rows}"
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
                return opened.read_row_group(within, [self._columns[file]], use_threads=False).column(0)
        # Damaged pages surface as ArrowInvalid, OSError or MemoryError, depending on the byte.
        except Exception as error:
            raise UnreadableError(f"damaged parquet data: {first_line(error)}") from None


def shard_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder that end so, or of its subfolder `data` as in a copy of a hub repository."""
    for place in (folder, folder / "data"):
        files = sorted(file for file in place.glob(f"*{suffix}") if not file.name.startswith("."))
        if files:
            return files
    return []


def open_parquet(path: Path, files: list[Path], split: Split) -> tuple[ParquetRecords, np.ndarray]:
    """Open parquet files and find the rows of a split.

    Files whose names start with 'train' and with 'test' (or 'val', 'valid', 'validation') are the split if
    both are there; otherwise 10% of the rows are held out by a hash of the row number.

    Raises:
        DataError: a file is damaged, has no column of images, or there are too few rows.
    """
    name = f"{path.resolve().stem if path.is_file() else path.resolve().name} (parquet)"
    sides = named_sides(by_role(files))
    if sides is None:
        records = ParquetRecords(name, files, [])
        return records, hold_out(map(str, range(len(records))), split, str(path))
    records = ParquetRecords(name, sides[split], sides[other_split(split)])
    if not len(records):
        raise DataError(f"{sides[split][0]} has no rows; give a file with images")
    return records, np.arange(len(records))


def by_role(files: list[Path]) -> dict[str, list[Path]]:
    """Return the files whose names start with 'train', 'test' and 'val', and under '' the others."""
    roles: dict[str, list[Path]] = {}
    for file in files:
        # "val" stands for "valid" and "validation" too, which start with it.
        role = next((role for role in ("train", "test", "val") if file.name.lower().startswith(role)), "")
        roles.setdefault(role, []).append(file)
    return roles


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
    name = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if name is None:
        raise DataError(f"{file} has the columns {schema.names}; name its column of images 'image' or 'img'")
    kind = schema.field(name).type
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)):
        raise DataError(
            f"{file} has a column '{name}' of type {schema.field(name).type}; it must hold encoded images, "
            "as binary or as struct<bytes: binary, path: string>"
        )
    return name


def read_labels(file: Path) -> Column | None:
    """Return the column `label` of a file, if it is one of class labels, and nothing else of it; raises DataError."""
    import pyarrow.parquet

    footer = read_footer(file)
    schema = footer.schema.to_arrow_schema()
    if LABEL_COLUMN not in schema.names or not is_label(schema.field(LABEL_COLUMN).type):
        return None
    try:
        with pyarrow.parquet.ParquetFile(file, metadata=footer, memory_map=True) as opened:
            values = opened.read([LABEL_COLUMN], use_threads=False).column(0)
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
