"""Image files through tokens and back to image files."""

import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from hybridvq import tiles
from hybridvq.data import PHOTOS, open_image, photo_files
from hybridvq.data.decode import image_extensions
from hybridvq.data.listing import files_below
from hybridvq.errors import ConfigError, DataError
from hybridvq.evaluation import bits_of
from hybridvq.metrics import psnr_db
from hybridvq.pixels import squared_error
from hybridvq.quantizers import Tokens
from hybridvq.tokenizer import Tokenizer
from hybridvq.writing import sole_writer, writable, write_whole


@dataclass(frozen=True)
class ReconstructedFile:
    """One image and what came back: its source, the PNG written, the error on [-1, 1] and its raw bits per pixel."""

    source: Path
    written: Path
    psnr_db: float
    rate_bpp: float


def reconstruct_files(
    tokenizer: Tokenizer,
    sources: Iterable[str | Path],
    out: Path,
    skipped: list[str] | None = None,
    step: float | None = None,
) -> Iterator[ReconstructedFile]:
    """Reconstruct every image of `sources` (files, or folders of them) into `out` as PNG, at its own size.

    `out` is a folder, or, with one image, may be a .png file.

    Sides that are not multiples of the downsampling factor are extended by reflection for the tokenizer, and cut again
    afterwards. With a list `skipped`, unreadable images are described there instead of raising.

    With a `step`, a hybrid quantizer rounds to that.

    Raises:
        DataError: an image cannot be read or there is none.
        ConfigError: `out` cannot be written, another process writes there, two images would be written to one file, or
            the quantizer has no step.
    """
    files = places(image_files(sources), out, ".png")
    with nullcontext() if out in files.values() else sole_writer(out):
        for path, written in files.items():
            try:
                image = open_image(path)
            except DataError as error:
                if skipped is None:
                    raise
                skipped.append(str(error))
                continue
            yield reconstruct_file(tokenizer, path, image, written, step)


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


def reconstruct_file(
    tokenizer: Tokenizer, path: Path, image: Image.Image, written: Path, step: float | None = None
) -> ReconstructedFile:
    """One RGB image through the tokenizer, its reconstruction saved as `written`."""
    bits = 0.0

    def choose(z: Tensor) -> Tokens:
        nonlocal bits
        quantized = tokenizer.quantizer(z, step)
        bits += bits_of(tokenizer, quantized, z.shape[2] * z.shape[3])
        return quantized.tokens

    [pixels] = tiles.reconstruct(tokenizer, [image], choose)
    save_png(Image.fromarray(pixels), written)
    rows = zip(np.asarray(image), pixels, strict=True)
    squares = sum(squared_error(a, b) for a, b in rows)
    mse = squares / pixels.size / 127.5**2
    return ReconstructedFile(path, written, psnr_db(mse), bits / (image.width * image.height))


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


def save_png(image: Image.Image, path: Path) -> None:
    """Write an image as PNG.

    Raises:
        ConfigError: the folder cannot be written.
    """
    content = io.BytesIO()
    image.save(content, format="PNG")
    save(content.getbuffer(), path)


def save(content: bytes | memoryview, path: Path) -> None:
    """Write a file whole or not at all.

    Raises:
        ConfigError: the folder cannot be written.
    """
    with writable(path):
        write_whole(path, content)
