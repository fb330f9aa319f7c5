"""Where a stream comes from: parquet files, tar files in the WebDataset layout, or the hub.

Each becomes a `datasets.IterableDataset` of rows {name, key, bytes} over shards that can be read apart, in which
images stay encoded.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hybridvq.data.decode import UnreadableError
from hybridvq.data.hub import chosen_part, encoded_column, loaded
from hybridvq.data.images import Split
from hybridvq.data.parquet import (
    common_folder,
    encoded_image,
    first_line,
    image_column,
    read_footer,
    relative,
    shard_sides,
)
from hybridvq.data.tar import check_tar, tar_images
from hybridvq.errors import DataError

_PIECES = 256  # into which a set of few large parquet files is cut, so that it can be shuffled and shared out
_ROWS = 64  # read from a parquet file at once
_FEW = 16  # hub shards below which row groups are taken for shards
_BUFFER = 1 << 20  # bytes read from a file at once

Row = dict[str, Any]


class Encoded(NamedTuple):
    """An image before it is decoded: its name, the key that its side is drawn from, and its content.

    The content is the bytes of an image file, or such a file, or why there is none.
    """

    name: str
    key: str
    content: bytes | Path | UnreadableError


@dataclass(frozen=True)
class Shards:
    """The shards of one split.

    Attributes:
        name: what is read, in short.
        location: what to name before a row's own name.
        dataset: a `datasets.IterableDataset` of rows.
        identity: what tells these shards from others, without reading them.
        hashed: whether the set names no test split, so that train and test are sides of a hash.
        read: turns a row of `dataset` into an `Encoded`.
    """

    name: str
    location: str
    dataset: Any
    identity: list[str]
    hashed: bool
    read: Callable[[Row], Encoded]


def parquet_shards(path: Path, files: list[Path], split: Split) -> Shards:
    """Describe parquet files as shards, and parts of them where they are few; all footers are read.

    The test split is that of `open_images`: by name, or else the same rows by a hash of the row number.

    Raises:
        DataError: a file is damaged or has no column of images, or there are no rows.
    """
    sides, folder = shard_sides(path, files), common_folder(files)
    chosen = sides[split] if sides else files
    spans, identity, before = [], [], 0
    for file in chosen:
        footer, name = read_footer(file), relative(file, folder)
        spans += _spans(file, name, footer, -(-_PIECES // len(chosen)), before)
        identity.append(f"{name}\t{file.stat().st_size}\t{footer.num_rows}")
        before += footer.num_rows
    if not before:
        raise DataError(f"{chosen[0]} has no rows; give a file with images")
    dataset = _generated(_parquet_rows, spans)
    return Shards(f"{_stem(path)} (parquet)", str(folder), dataset, identity, sides is None, _read_row)


def tar_shards(path: Path, files: list[Path], split: Split) -> Shards:
    """Describe tar files as shards; the beginning of each is read.

    The test split is by name, or else by a hash of 'file/member'.

    Raises:
        DataError: a file is damaged, or the first has no member that is an image.
    """
    sides, folder = shard_sides(path, files), common_folder(files)
    chosen = sides[split] if sides else files
    check_tar(chosen)
    identity = [f"{relative(file, folder)}\t{file.stat().st_size}" for file in chosen]
    dataset = _generated(_tar_rows, [(str(file), relative(file, folder)) for file in chosen])
    return Shards(f"{_stem(path)} (tar)", str(folder), dataset, identity, sides is None, _read_row)


def hub_shards(data: str, split: Split) -> Shards:
    """Describe the shards of a hub data set; nothing but its description is read.

    The test split is that of `chosen_part`, or else by a hash of each encoded image.

    Raises:
        DataError: it cannot be loaded, or has no column of images.
    """
    import datasets

    def load() -> tuple[dict[str, Any], list[str]]:
        builder = datasets.load_dataset_builder(data)
        parts = {name: _encoded_shards(part) for name, part in builder.as_streaming_dataset().items()}
        # Their addresses hold the revision of the repository.
        addresses = sorted(str(file) for files in (builder.config.data_files or {}).values() for file in files)
        return parts, addresses

    parts, addresses = loaded(data, load)
    part, other = chosen_part(data, parts, split)
    dataset, column = encoded_column(data, parts[part])
    identity = [f"{data}\t{part if other is None else split}", *addresses]
    return Shards(data, data, dataset, identity, other is None, functools.partial(_read_hub_row, column=column))


def _encoded_shards(part: Any) -> Any:
    # Streams from the hub decode images in threads unless told not to.
    part = part.decode(False) if part.features else part
    return part.reshard() if part.num_shards < _FEW else part


def _generated(rows: Callable[[list[Any]], Iterator[Row]], shards: list[Any]) -> Any:
    import datasets
    from datasets.iterable_dataset import ExamplesIterable

    text = datasets.Value("string")
    features = {"name": text, "key": text, "bytes": datasets.Value("large_binary"), "path": text, "problem": text}
    # Not IterableDataset.from_generator, which makes a folder in the cache for what needs none.
    examples = ExamplesIterable(functools.partial(_keyed, rows), {"shards": shards})
    return datasets.IterableDataset(examples, datasets.DatasetInfo(features=datasets.Features(features)))


def _keyed(rows: Callable[[list[Any]], Iterator[Row]], shards: list[Any]) -> Iterator[tuple[int, Row]]:
    return enumerate(rows(shards))


def _row(name: str, key: str, read: Callable[[], bytes | Path]) -> Row:
    row: Row = {"name": name, "key": key, "bytes": None, "path": None, "problem": None}
    try:
        content = read()
    except UnreadableError as error:
        return row | {"problem": str(error)}
    return row | {
        "bytes" if isinstance(content, bytes) else "path": content if isinstance(content, bytes) else str(content)
    }


def _stem(path: Path) -> str:
    return path.resolve().stem if path.is_file() else path.resolve().name


class _Span(NamedTuple):
    """Row groups [first, last) of a parquet file; `start` of its rows and `before` rows of others precede them."""

    file: str
    name: str
    column: str
    first: int
    last: int
    start: int
    before: int


def _spans(file: Path, name: str, footer: Any, most: int, before: int) -> list[_Span]:
    """Cut a file into at most so many spans."""
    column = image_column(file, footer)
    groups = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    pieces = min(len(groups), most)
    edges = [len(groups) * piece // pieces for piece in range(pieces + 1)] if pieces else []
    return [_Span(str(file), name, column, a, b, sum(groups[:a]), before) for a, b in itertools.pairwise(edges)]


def _parquet_rows(shards: list[_Span]) -> Iterator[Row]:
    for file, name, column, first, last, start, before in shards:
        # No path is made for each row: pathlib interns its parts, and Python's table of interned strings, made anew
        # every so often, would leave holes in memory.
        folder, row, groups = Path(file).parent, start, list(range(first, last))
        opened = _opened_parquet(file)
        try:
            with opened:
                for batch in opened.iter_batches(_ROWS, row_groups=groups, columns=[column], use_threads=False):
                    for value in batch.column(column):
                        read = functools.partial(encoded_image, value.as_py(), folder)
                        yield _row(f"{name} row {row}", str(before + row), read)
                        row += 1
        # Damaged pages surface as ArrowInvalid, OSError or MemoryError, depending on the byte.
        except Exception as error:
            raise DataError(
                f"{file} cannot be read after row {row} (damaged parquet data: {first_line(error)}); "
                "download or write it again"
            ) from None


def _opened_parquet(file: str) -> Any:
    import pyarrow.parquet

    footer = _footer_thread(os.getpid()).submit(read_footer, Path(file)).result()
    # Without a buffer a whole row group, which may be a whole file, would be read at once; with pre_buffer all row
    # groups of the span would be kept in memory until its end.
    return pyarrow.parquet.ParquetFile(file, metadata=footer, buffer_size=_BUFFER, pre_buffer=False)


@functools.cache
def _footer_thread(process: int) -> ThreadPoolExecutor:
    """The one thread of a process that reads footers; a forked process inherits none that runs.

    A file is opened by any of the threads in which `datasets` reads, and malloc keeps the memory that was freed for
    the thread that had asked for it: in the end each would have held as much as all footers that are open at once.
    """
    return ThreadPoolExecutor(1)


def _tar_rows(shards: list[tuple[str, str]]) -> Iterator[Row]:
    for file, name in shards:
        for member, read in tar_images(Path(file)):
            yield _row(f"{name}/{member}", f"{name}/{member}", read)


def _read_row(row: Row) -> Encoded:
    content = row["bytes"] if row["bytes"] is not None else row["path"] and Path(row["path"])
    return Encoded(row["name"], row["key"], UnreadableError(row["problem"]) if content is None else content)


def _read_hub_row(row: Row, column: str) -> Encoded:
    import fsspec

    value = row[column]
    value = value if isinstance(value, dict) else {"bytes": value, "path": None}
    content, path = value["bytes"], value["path"]
    if content is None and path is not None:
        with fsspec.open(path, "rb") as file:
            content = file.read()
    key = hashlib.sha256(content or b"").hexdigest()
    name = path or f"image with SHA-256 {key[:16]}"
    return Encoded(name, key, UnreadableError("no bytes") if content is None else content)
