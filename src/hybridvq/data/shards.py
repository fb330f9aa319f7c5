"""Where a stream comes from: parquet files, tar files in the WebDataset layout, or the hub.

Each becomes a `datasets.IterableDataset` of rows {name, key, bytes} over shards that can be read apart, in which
images stay encoded.
"""

import functools
import hashlib
import itertools
import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hybridvq.data.hub import encoded_column, loaded
from hybridvq.data.images import Split
from hybridvq.data.parquet import IMAGE_COLUMNS, by_role, first_line, image_column, read_footer
from hybridvq.data.splits import named_sides
from hybridvq.errors import DataError

TAR_MEMBERS = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of the members of a tar file that are images, in any case."""

_PIECES = 256  # into which a set of few large parquet files is cut, so that it can be shuffled and shared out
_ROWS = 64  # read from a parquet file at once
_FEW = 16  # hub shards below which row groups are taken for shards
_BUFFER = 1 << 20  # bytes read from a file at once

Row = dict[str, Any]


class Encoded(NamedTuple):
    """An image before it is decoded: its name, the key that its side is drawn from, and the file or None."""

    name: str
    key: str
    content: bytes | None


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

    The test split is that of `open_images`: by file name, or else the same rows by a hash of the row number.

    Raises:
        DataError: a file is damaged or has no column of images, or there are no rows.
    """
    sides = named_sides(by_role(files))
    chosen = sides[split] if sides else files
    spans, identity, before = [], [], 0
    for file in chosen:
        footer = read_footer(file)
        spans += _spans(file, footer, -(-_PIECES // len(chosen)), before)
        identity.append(f"{file.name}\t{file.stat().st_size}\t{footer.num_rows}")
        before += footer.num_rows
    if not before:
        raise DataError(f"{chosen[0]} has no rows; give a file with images")
    dataset = _generated(_parquet_rows, spans)
    return Shards(f"{_stem(path)} (parquet)", str(chosen[0].parent), dataset, identity, sides is None, _read_row)


def tar_shards(path: Path, files: list[Path], split: Split) -> Shards:
    """Describe tar files as shards; the beginning of each is read.

    The test split is by file name, or else by a hash of 'file/member'.

    Raises:
        DataError: a file is damaged, or the first has no member that is an image.
    """
    sides = named_sides(by_role(files))
    chosen = sides[split] if sides else files
    for file in chosen:
        with _opened_tar(file):
            pass
    if next(_tar_rows([str(chosen[0])]), None) is None:
        raise DataError(f"{chosen[0]} has no member that ends in {', '.join(TAR_MEMBERS)}; give tar files of images")
    identity = [f"{file.name}\t{file.stat().st_size}" for file in chosen]
    dataset = _generated(_tar_rows, [str(file) for file in chosen])
    return Shards(f"{_stem(path)} (tar)", str(chosen[0].parent), dataset, identity, sides is None, _read_row)


def hub_shards(data: str, split: Split) -> Shards:
    """Describe the shards of a hub data set; nothing but its description is read.

    The test split is its 'test' (or 'val', 'valid', 'validation'), or else by a hash of each encoded image.

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
    sides = named_sides(parts)
    name = split if sides else "train" if "train" in parts else next(iter(parts))
    part = sides[split] if sides else parts[name]
    names = (*IMAGE_COLUMNS, *(ending.removeprefix(".") for ending in TAR_MEMBERS))
    dataset, column = encoded_column(data, part, names)
    identity = [f"{data}\t{name}", *addresses]
    return Shards(data, data, dataset, identity, sides is None, functools.partial(_read_hub_row, column=column))


def _encoded_shards(part: Any) -> Any:
    # Streams from the hub decode images in threads unless told not to.
    part = part.decode(False) if part.features else part
    return part.reshard() if part.num_shards < _FEW else part


def _generated(rows: Callable[[list[Any]], Iterator[Row]], shards: list[Any]) -> Any:
    import datasets

    features = datasets.Features(
        {"name": datasets.Value("string"), "key": datasets.Value("string"), "bytes": datasets.Value("large_binary")}
    )
    return datasets.IterableDataset.from_generator(rows, features=features, gen_kwargs={"shards": shards})


def _stem(path: Path) -> str:
    return path.resolve().stem if path.is_file() else path.resolve().name


class _Span(NamedTuple):
    """Row groups [first, last) of a parquet file; `start` of its rows and `before` rows of others precede them."""

    file: str
    column: str
    first: int
    last: int
    start: int
    before: int


def _spans(file: Path, footer: Any, most: int, before: int) -> list[_Span]:
    """Cut a file into at most so many spans."""
    column = image_column(file, footer)
    groups = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    pieces = min(len(groups), most)
    edges = [len(groups) * piece // pieces for piece in range(pieces + 1)] if pieces else []
    return [_Span(str(file), column, a, b, sum(groups[:a]), before) for a, b in itertools.pairwise(edges)]


def _parquet_rows(shards: list[_Span]) -> Iterator[Row]:
    for file, column, first, last, start, before in shards:
        # No path is made for each row: pathlib interns its parts, and Python's table of interned strings, made anew
        # every so often, would leave holes in memory.
        name, row, groups = Path(file).name, start, list(range(first, last))
        opened = _opened_parquet(file)
        try:
            with opened:
                for batch in opened.iter_batches(_ROWS, row_groups=groups, columns=[column], use_threads=False):
                    for value in batch.column(0):
                        content = value.as_py()
                        content = content["bytes"] if isinstance(content, dict) else content
                        yield {"name": f"{name} row {row}", "key": str(before + row), "bytes": content}
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


def _tar_rows(shards: list[str]) -> Iterator[Row]:
    for file in shards:
        path = Path(file)
        with _opened_tar(path) as archive:
            while (member := _next_image(archive)) is not None:
                name = f"{path.name}/{member.name}"
                try:
                    content = archive.extractfile(member)
                    data = content.read() if content else b""
                except _TAR_ERRORS as error:
                    raise _tar_error(file, error) from None
                yield {"name": name, "key": name, "bytes": data}


_TAR_ERRORS = (OSError, EOFError, tarfile.TarError, zlib.error)


def _opened_tar(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file)
    # Its own words list every compression that was tried.
    except tarfile.ReadError:
        raise _tar_error(file, ValueError("not a tar file")) from None
    except _TAR_ERRORS as error:
        raise _tar_error(file, error) from None


def _next_image(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        while (member := archive.next()) is not None:
            # Otherwise a description of every member stays in memory.
            archive.members = []  # type: ignore[attr-defined]
            hidden = posixpath.basename(member.name).startswith(".")
            if member.isfile() and not hidden and member.name.lower().endswith(TAR_MEMBERS):
                return member
    except _TAR_ERRORS as error:
        raise _tar_error(archive.name, error) from None
    return None


def _tar_error(file: Any, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read as a tar file ({first_line(error)}); download or write it again")


def _read_row(row: Row) -> Encoded:
    return Encoded(row["name"], row["key"], row["bytes"])


def _read_hub_row(row: Row, column: str) -> Encoded:
    import fsspec

    value = row[column]
    value = value if isinstance(value, dict) else {"bytes": value, "path": None}
    content, path = value["bytes"], value["path"]
    if content is None and path is not None:
        with fsspec.open(path, "rb") as file:
            content = file.read()
    key = hashlib.sha256(content or b"").hexdigest()
    return Encoded(path or f"image with SHA-256 {key[:16]}", key, content)
