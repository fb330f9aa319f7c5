"""Which files a command reads, and where what it makes of them goes; without torch, to tell of a missing one soon."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hybridvq.data import PHOTOS, photo_files
from hybridvq.data.decode import image_extensions
from hybridvq.data.listing import files_below
from hybridvq.errors import ConfigError, DataError


def places(files: Mapping[Path, Path], out: Path, ending: str) -> dict[Path, Path]:
    """Where each file's other form is written: to `out` itself if that has the ending, else into the folder `out`.

    Raises:
        ConfigError: two would be written to one file, or one over a file that is read.
    """
    if out.is_dir() or out.suffix.lower() != ending:
        return targets(files, out, ending)
    if len(files) > 1:
        raise ConfigError(f"{out} is one file, and there are {len(files)} to write; give a folder as --out")
    [source] = files
    if out.resolve() == source.resolve():
        raise ConfigError(f"{out} is the file that is read; choose another --out")
    return {source: out}


def targets(files: Mapping[Path, Path], out: Path, ending: str) -> dict[Path, Path]:
    """Where what is made of each file is written: into the folder `out`, under its name there with another ending.

    Args:
        files: each file and its name, which may have folders; see `files_in`.
        out: the folder.
        ending: of what is written.

    Raises:
        ConfigError: two would be written to one file, or one over a file that is read.
    """
    taken: dict[Path, Path] = {}
    read = {path.resolve() for path in files}
    for path, name in files.items():
        written = out / name.parent / f"{path.stem}{ending}"
        if taken.setdefault(written, path).resolve() != path.resolve():
            raise ConfigError(f"{path} and {taken[written]} would both be written to {written}; rename one of them")
        if written.resolve() in read:
            raise ConfigError(f"{path} would be written over the file {written}, which is read; choose another --out")
    return {path: written for written, path in taken.items()}


def image_files(sources: Iterable[str | Path]) -> dict[Path, Path]:
    """As `files_in`, of image files, and of `photos` the sample photographs.

    Raises:
        DataError: a source does not exist, or holds no image.
    """
    named: list[str | Path] = []
    for source in sources:
        named += photo_files() if str(source) == PHOTOS and not Path(source).exists() else [source]
    return files_in(named, image_extensions(), "image")


def files_in(sources: Iterable[str | Path], endings: Collection[str], kind: str) -> dict[Path, Path]:
    """Files as they are given, folders as the files below them with one of the endings, which make them of a `kind`.

    Returns:
        Each file and its name: its path relative to the given folder, or the last part of the given file.

    Raises:
        DataError: a source does not exist or cannot be read, or holds none.
    """
    files: dict[Path, Path] = {}
    for source in map(Path, sources):
        if source.is_dir():
            found = files_below(source, endings)
            if not found:
                raise DataError(f"{source} holds no {kind} files; give {kind} files or a folder of them")
            files |= {file: file.relative_to(source) for file in found}
        elif source.exists():
            files[source] = Path(source.name)
        else:
            raise DataError(f"there is no file or folder {source}; give {kind} files or a folder of them")
    return files
