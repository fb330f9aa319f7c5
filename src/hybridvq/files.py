"""Image files through tokens and back to image files."""

import io
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from hybridvq import tiles
from hybridvq.data import open_image
from hybridvq.errors import DataError
from hybridvq.evaluation import bits_of
from hybridvq.metrics import psnr_db
from hybridvq.paths import image_files, places
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
