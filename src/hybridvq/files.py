"""Image files through tokens and back to image files."""

import io
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hybridvq.data import PHOTOS, photo_files, read_image
from hybridvq.data.decode import image_extensions
from hybridvq.data.listing import files_below
from hybridvq.errors import ConfigError, DataError
from hybridvq.evaluation import reconstruct, to_pixels
from hybridvq.metrics import psnr_db
from hybridvq.tokenizer import Tokenizer
from hybridvq.writing import sole_writer, write_whole

MAX_PIXELS = 2**25
"""Largest image that is reconstructed, which the networks hold as a whole: some 200 bytes a pixel at width 64."""


@dataclass(frozen=True)
class ReconstructedFile:
    """One image and what came back: its source, the PNG written, the error on [-1, 1] and its raw bits a pixel."""

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

    Sides that are not multiples of the downsampling factor are padded with their edge pixels for the tokenizer,
    and the padding is cut off again. With a list `skipped`, unreadable images are described there instead of raising.

    With a `step`, a hybrid quantizer rounds to that.

    Raises:
        DataError: an image cannot be read or has over MAX_PIXELS, or there is none.
        ConfigError: `out` cannot be written, another process writes there, two images would be written to one file, or
            the quantizer has no step.
    """
    files = places(image_files(sources), out, ".png")
    with nullcontext() if out in files.values() else sole_writer(out):
        for path, written in files.items():
            try:
                pixels = read_image(path, MAX_PIXELS)
            except DataError as error:
                if skipped is None:
                    raise
                skipped.append(str(error))
                continue
            yield reconstruct_file(tokenizer, path, pixels, written, step)


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
    tokenizer: Tokenizer, path: Path, pixels: np.ndarray, written: Path, step: float | None = None
) -> ReconstructedFile:
    """One image (H, W, 3) uint8 through the tokenizer, its reconstruction saved as `written`."""
    x = torch.from_numpy(pixels.copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    padded = pad_to_multiple(x, tokenizer.downsampling)
    x_hat, bits = reconstruct(tokenizer, padded, step)
    x_hat = x_hat[..., : x.shape[2], : x.shape[3]].cpu()
    save_png(Image.fromarray(to_pixels(x_hat)[0].numpy()), written)
    mse = float(F.mse_loss(x_hat, x))
    return ReconstructedFile(path, written, psnr_db(mse), bits / (x.shape[2] * x.shape[3]))


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


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """x (B, 3, H, W) with right and bottom edges extended until both sides are multiples of `multiple`."""
    height, width = (math.ceil(side / multiple) * multiple for side in x.shape[2:])
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate")


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
    try:
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from error
