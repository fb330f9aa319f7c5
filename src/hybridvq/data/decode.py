"""One image file or byte string → 8-bit RGB pixels, the same way everywhere.

The policy:

- Orientation: the EXIF tag is applied, so pixels are as a viewer shows them. A damaged EXIF block is ignored.
- Greyscale is repeated to three channels; palettes, CMYK and YCbCr are converted to RGB; colour profiles are
  ignored.
- Transparency is composited on white: drawings and cut-outs are made for a white page, and merely dropping
  the alpha channel would uncover whatever colour happens to lie under transparent pixels.
- 16-bit greyscale is scaled to 8 bits by 255 / 65535, rounded. 32-bit integers are read as 16-bit values when
  they fit and refused when they do not; floating-point images are refused, for they state no range.
- Animations: the first frame.
- Size: at most `MAX_PIXELS`, checked from the header, before any pixel is allocated.
- Formats: all that Pillow decodes by itself. EPS (which would run Ghostscript) and the formats that Pillow
  only recognises (HDF5, GRIB, BUFR, MPEG, WMF) are not opened.
"""

import functools
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hybridvq.errors import DataError

MAX_PIXELS = 120_000_000
"""Largest image that is decoded, in pixels: 360 MB as RGB."""

_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_WHITE = (255, 255, 255, 255)


class UnreadableError(Exception):
    """An image that cannot be decoded; its text is the reason alone, to which the caller adds the name."""


def read_image(path: str | Path) -> np.ndarray:
    """Decode one image file at its own resolution, under the policy of this module.

    Returns:
        The pixels, (H, W, 3) uint8.

    Raises:
        DataError: the file is missing, too large, or not an image that can be decoded.
    """
    return np.array(open_image(path))


def open_image(path: str | Path) -> Image.Image:
    """As `read_image`, as an RGB image of Pillow.

    Raises:
        DataError: the file is missing, too large, or not an image that can be decoded.
    """
    try:
        with without_warnings():
            return decode(Path(path))
    except UnreadableError as error:
        raise DataError(f"{path} cannot be read as an image ({error}); give another file") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image that Pillow has opened or made, as RGB under the policy of this module; the given one stays as it is.

    Raises:
        DataError: it cannot be read, has no pixels, or its pixels have no known range.
    """
    if not image.width * image.height:
        raise DataError(f"the image is {image.width}x{image.height} pixels and so has none; give another one")
    try:
        with without_warnings():
            return _to_rgb(_upright(image))
    except UnreadableError as error:
        raise DataError(f"the image cannot be read ({error}); give another one") from None
    except OSError as error:
        raise DataError(f"the image cannot be read ({_reason(error)}); give another one") from error


def decode(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file or the bytes of one, of at most `max_pixels`, to an RGB image at its own resolution.

    Raises:
        UnreadableError: with the reason, whatever is wrong with the source.
    """
    try:
        with Image.open(_handle(source), formats=_formats()) as image:
            _check_pixels(image.width * image.height, f"{image.width}x{image.height} pixels", max_pixels)
            image.load()
            return _to_rgb(_upright(image))
    except UnreadableError:
        raise
    # A damaged file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error, KeyError.
    except Exception as error:
        raise UnreadableError(_reason(error)) from None


def fit(image: Image.Image, size: int) -> np.ndarray:
    """Resize so that the short side is `size` (bicubic, antialiased), unless it is; enlarge small images.

    Returns:
        The pixels, (H, W, 3) uint8 with min(H, W) == size.

    Raises:
        UnreadableError: the image is so elongated that the result would exceed `MAX_PIXELS`.
    """
    short, long = sorted(image.size)
    if short != size:
        scaled = max(size, round(long * size / short))
        _check_pixels(size * scaled, f"{scaled} pixels along its long side at size {size}")
        shape = (size, scaled) if image.width == short else (scaled, size)
        image = image.resize(shape, Image.Resampling.BICUBIC)
    return np.asarray(image)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's remarks on odd but readable files (corrupt EXIF, large sizes); not per thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def image_extensions() -> frozenset[str]:
    """Return the file extensions, as '.png', of the formats that `decode` opens."""
    formats = set(_formats())
    return frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED)


def _handle(source: bytes | Path) -> io.BytesIO | Path:
    if isinstance(source, bytes):
        if not source:
            raise UnreadableError("empty")
        return io.BytesIO(source)
    if not source.exists():
        raise UnreadableError("no such file")
    # Opening a named pipe would wait for ever.
    if not source.is_file():
        raise UnreadableError("not a regular file")
    if not source.stat().st_size:
        raise UnreadableError("empty")
    return source


def _check_pixels(pixels: int, described: str, most: int = MAX_PIXELS) -> None:
    if pixels > most:
        raise UnreadableError(f"{described}, over the limit of {most // 10**6} megapixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Without the tag exif_transpose would copy the image.
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    # A damaged EXIF block says nothing about the pixels, which have been read by now.
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableError("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(values: np.ndarray) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableError("32-bit pixels, whose range is unknown")
    # 255 / 65535 is 1 / 257 exactly.
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+ pixels", str(error))
        return f"{pixels.group() if pixels else 'too large'}, over the limit of {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in str(error).lower():
        return "truncated"
    lines = str(error).splitlines()
    return f"damaged: {lines[0] if lines else type(error).__name__}"
