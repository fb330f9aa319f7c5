"""A photograph that somebody chose or uploaded, at a size that answers at once."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvq.data import PHOTOGRAPHS, load_photograph
from hybridvq.data.decode import UnreadableError, decode
from hybridvq.errors import DataError

SAMPLES = ("chelsea", *(name for names in PHOTOGRAPHS.values() for name in names if name != "chelsea"))
UPLOAD_PIXELS = 40_000_000  # 120 MB as RGB; told from the header, before any pixel is decoded
PIXELS = 2**20  # of what is worked on: some seconds per step on one core
SIDE = 4096  # browsers do not show much longer images


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the page works on it.

    Attributes:
        name: of the sample or the file.
        pixels: (H, W, 3) uint8.
        note: how it differs from what was uploaded; may be empty.
    """

    name: str
    pixels: np.ndarray
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


@cache
def sample_picture(name: str) -> Picture:
    """One of SAMPLES, the same for everybody.

    Raises:
        DataError: it is none of them, or the installed packages no longer ship it.
    """
    if name not in SAMPLES:
        raise DataError(f"there is no sample photograph {name!r}; choose one of {', '.join(SAMPLES)}")
    return Picture(name, load_photograph(name))


def open_picture(path: str | Path) -> Picture:
    """An image file of at most UPLOAD_PIXELS, scaled down to at most PIXELS.

    Raises:
        DataError: it cannot be read as an image, or is too large.
    """
    name = Path(path).name
    try:
        image = decode(Path(path), UPLOAD_PIXELS)
    except UnreadableError as error:
        raise DataError(f"{name} cannot be read as an image ({error}); choose another file.") from None
    small = scaled_down(image)
    if small is image:
        return Picture(name, np.array(image))
    note = f"Scaled down from {image.width}x{image.height} to {small.width}x{small.height} pixels, to answer at once."
    return Picture(name, np.array(small), note)


def scaled_down(image: Image.Image) -> Image.Image:
    """The image itself where it has at most PIXELS and no side over SIDE, else a smaller one of its proportions."""
    scale = min(math.sqrt(PIXELS / (image.width * image.height)), SIDE / max(image.size))
    if scale >= 1:
        return image
    width, height = (max(1, math.floor(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
