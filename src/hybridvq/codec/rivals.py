"""The common formats at about the size of another file."""

import io
from collections.abc import Callable
from functools import cache, partial
from typing import Literal

import numpy as np
from PIL import Image

QUALITIES = {"JPEG": (1, 95), "WebP": (0, 100)}


def file_near(name: Literal["JPEG", "WebP"], pixels: np.ndarray, size: int) -> tuple[bytes, int]:
    """The file of pixels (H, W, 3) uint8 whose size is nearest to `size` bytes, and its quality."""
    at = cache(partial(encode, name, Image.fromarray(pixels)))
    quality = nearest_quality(lambda q: len(at(q)), size, *QUALITIES[name])
    return at(quality), quality


def encode(name: str, image: Image.Image, quality: int) -> bytes:
    """The image in a format of QUALITIES."""
    buffer = io.BytesIO()
    image.save(buffer, format=name, quality=quality, optimize=True)
    return buffer.getvalue()


def nearest_quality(size_at: Callable[[int], int], size: int, low: int, high: int) -> int:
    """The quality in low..high whose size is nearest, by bisection; sizes grow with quality."""
    first = low
    while low < high:
        middle = (low + high) // 2
        if size_at(middle) < size:
            low = middle + 1
        else:
            high = middle
    return min((max(first, low - 1), low), key=lambda quality: abs(size_at(quality) - size))
