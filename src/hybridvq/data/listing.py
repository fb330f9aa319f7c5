"""The files below a folder, by one rule for every reader.

- Hidden files and folders, whose names start with a dot, are passed over.
- Endings count in any case.
- Links are followed, but for those to a folder that they lie in.
"""

import functools
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from hybridvq.data.decode import image_extensions
from hybridvq.errors import DataError
from hybridvq.printing import say


class Listing(NamedTuple):
    """The files below a folder by kind, each kind sorted by path."""

    parquet: list[Path]
    tar: list[Path]
    images: list[Path]


def list_folder(folder: Path) -> Listing:
    """Find the parquet, tar and image files below a folder; raises DataError as `files_below` does."""
    listing = Listing([], [], [])
    places = {".parquet": listing.parquet, ".tar": listing.tar}
    for file in files_below(folder, {*places, *image_extensions()}):
        places.get(file.suffix.lower(), listing.images).append(file)
    return listing


def files_below(folder: Path, endings: Collection[str]) -> list[Path]:
    """Return the files below a folder that have one of the endings, such as '.png', sorted by path.

    Raises:
        DataError: a folder cannot be read, or a link that may be one leads nowhere.
    """
    return sorted(_walk(folder, endings, frozenset()), key=lambda file: file.as_posix())


def note_left_out(folder: Path, kind: str, others: list[Path]) -> None:
    """Say that of a folder the files of one kind are read, and not these others, if there are any."""
    if others:
        note(
            f"{folder} is read for its {kind} files; {len(others)} other(s) are left out, "
            f"such as {others[0].relative_to(folder)}"
        )


@functools.cache
def note(sentence: str) -> None:
    """Print a sentence on stderr, once in a process however often a set is opened."""
    say(sentence, error=True)


def _walk(folder: Path, endings: Collection[str], above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        own = os.stat(folder)
        if (own.st_dev, own.st_ino) in above:
            return
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        for entry in visible:
            ending = os.path.splitext(entry.name)[1].lower()
            if entry.is_dir():
                yield from _walk(folder / entry.name, endings, above | {(own.st_dev, own.st_ino)})
            elif ending in endings:
                yield folder / entry.name
            elif not ending and not os.path.exists(entry.path):
                raise DataError(f"{entry.path} is a link to a place that is not there; restore it or remove the link")
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its name and permissions") from None
