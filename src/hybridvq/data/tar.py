"""Images in tar files, read from front to back."""

import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hybridvq.data.decode import MAX_PIXELS, UnreadableError, image_extensions
from hybridvq.data.parquet import first_line
from hybridvq.errors import DataError

_MAX_BYTES = 8 * MAX_PIXELS  # of a member: what the largest image takes at four channels of 16 bits
_MAX_LINKS = 40  # from one member to the next, as in Linux
# Sizes that overflow surface as OverflowError, MemoryError or ValueError, nested headers as RecursionError.
_ERRORS = (OSError, EOFError, ValueError, OverflowError, MemoryError, RecursionError, tarfile.TarError, zlib.error)


def check_tar(files: list[Path]) -> None:
    """Open each file, and find an image in the first; raises DataError."""
    for file in files:
        _opened(file).close()
    if next(tar_images(files[0]), None) is None:
        raise DataError(
            f"{files[0]} has no member that ends in .jpg, .png or as another image; give tar files of images"
        )


def tar_images(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each member that ends like an image and is not hidden, and a function that reads it.

    The function must be called before the next member is asked for. It raises UnreadableError where the member is a
    link to none, sparse, or larger than any image.

    Raises:
        DataError: the file is damaged, also by that function.
    """
    with _opened(file) as archive:
        targets: dict[str, tarfile.TarInfo] = {}
        while (member := _next(archive)) is not None:
            ending = posixpath.splitext(member.name)[1].lower()
            hidden = any(part.startswith(".") for part in posixpath.normpath(member.name).split("/"))
            if hidden or ending not in image_extensions() or not (member.isfile() or member.islnk() or member.issym()):
                continue
            yield member.name, partial(_read, archive, member, targets)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, targets: dict[str, tarfile.TarInfo]) -> bytes:
    for _ in range(_MAX_LINKS):
        if member.isfile():
            break
        if not targets:
            targets.update(_members(Path(os.fsdecode(archive.name))))  # type: ignore[arg-type]
        folder = posixpath.dirname(member.name) if member.issym() else ""
        target = targets.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if target is None:
            raise UnreadableError(f"a link to {member.linkname}, which is not in the archive")
        member = target
    else:
        raise UnreadableError("a link that leads back to itself")
    if member.issparse() or member.size > _MAX_BYTES:
        raise UnreadableError(
            "a sparse file" if member.issparse() else f"{member.size} bytes, more than an image takes"
        )
    try:
        content = archive.extractfile(member)
        return content.read() if content else b""
    except _ERRORS as error:
        raise _damaged(archive.name, error) from None


def _members(file: Path) -> dict[str, tarfile.TarInfo]:
    """All members by name: links are seldom, so that only an archive with one is read ahead."""
    with _opened(file) as archive:
        return {posixpath.normpath(member.name): member for member in iter(partial(_next, archive), None)}


def _opened(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file)
    # Its own words list every compression that was tried.
    except tarfile.ReadError:
        raise _damaged(file, ValueError("not a tar file")) from None
    except _ERRORS as error:
        raise _damaged(file, error) from None


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        member = archive.next()
    except _ERRORS as error:
        raise _damaged(archive.name, error) from None
    # Otherwise a description of every member stays in memory.
    archive.members = []  # type: ignore[attr-defined]
    # A size below zero would lead back to members that were read.
    if member is not None and (member.size < 0 or archive.offset <= member.offset):
        raise _damaged(archive.name, ValueError(f"the size of its member {member.name} is {member.size}"))
    return member


def _damaged(file: Any, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read as a tar file ({first_line(error)}); download or write it again")
