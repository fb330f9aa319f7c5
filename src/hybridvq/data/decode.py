"""One image file or byte string → 8-bit RGB pixels, the same way everywhere.

The policy:

- Orientation: the EXIF tag is applied, so pixels are as a viewer shows them. A damaged EXIF block is ignored.
- Grayscale is repeated to three channels; palettes, CMYK and YCbCr are converted to RGB; color profiles and texts
  are ignored, whatever their size.
- Transparency is composited on white: drawings and cut-outs are made for a white page, and merely dropping
  the alpha channel would uncover whatever color happens to lie under transparent pixels. A transparent color (tRNS)
  is compared at the depth of the file.
- 12- and 16-bit grayscale is scaled to 8 bits, rounded, and inverted where white is zero. 32-bit integers are read as
  16-bit values when they fit and refused when they do not; floating-point images are refused, for they state no range.
- Animations: the first frame.
- Size: at most `MAX_PIXELS` and `MAX_SIDE`, or `SLOW_PIXELS` in formats that Pillow decodes in Python, checked from
  the header, before any pixel is allocated. Icons are checked by the image inside.
- Formats: all that Pillow decodes by itself. EPS (which would run Ghostscript), the formats that hold an image of
  another format (BLP, IPTC), and those that Pillow only recognizes (HDF5, GRIB, BUFR, MPEG, WMF) are not opened.
"""

import functools
import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import IcnsImagePlugin, IcoImagePlugin, Image, UnidentifiedImageError

from hybridvq.data.rgb import UnreadableError, convert
from hybridvq.errors import DataError

MAX_PIXELS = 120_000_000
"""Largest image that is decoded, in pixels: 360 MB as RGB."""

MAX_SIDE = 2**20
"""Longest side of an image that is decoded, in pixels."""

SLOW_PIXELS = 2**24
"""Largest image of a format that Pillow decodes in Python, slowly: QOI, XPM, plain PPM and others."""

MAX_ASPECT = 100
"""How often the short side may go into the long one where an image is enlarged."""

_NOT_DECODED = {"BLP", "BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_PNG = b"\x89PNG\r\n\x1a\n"
_UNUSED = {b"iCCP", b"iTXt", b"tEXt", b"zTXt"}  # chunks of a PNG


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one image file of at most `max_pixels` at its own resolution, under the policy of this module.

    Returns:
        The pixels, (H, W, 3) uint8.

    Raises:
        DataError: the file is missing, too large, or not an image that can be decoded.
    """
    return np.array(open_image(path, max_pixels))


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, as an RGB image of Pillow.

    Raises:
        DataError: the file is missing, too large, or not an image that can be decoded.
    """
    try:
        with without_warnings():
            return decode(Path(path), max_pixels)
    except UnreadableError as error:
        raise DataError(f"{path} cannot be read as an image ({error}); give another file") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image that Pillow has opened or made, as RGB under the policy of this module.

    One that is still to be read from its file is read here, whatever its size: who opened it has chosen the limit.
    A transparent color of a PNG file of 2, 4 or 16 bits is known only until then.

    Raises:
        DataError: it cannot be read, has no pixels, or its pixels have no known range.
    """
    if not image.width * image.height:
        raise DataError(f"the image is {image.width}x{image.height} pixels and so has none; give another one")
    try:
        with without_warnings(), _reasons():
            return convert(image)
    except UnreadableError as error:
        raise DataError(f"the image cannot be read ({error}); give another one") from None


def decode(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file or the bytes of one, of at most `max_pixels`, to an RGB image at its own resolution.

    Raises:
        UnreadableError: with the reason, whatever is wrong with the source.
    """
    with _reasons(), _handle(source) as file:
        try:
            return _decode(file, max_pixels)
        except UnreadableError:
            raise
        except Exception:
            # Pillow refuses profiles and texts that are large or damaged, though none is needed.
            lean = _without_metadata(file)
            if lean is None:
                raise
        return _decode(lean, max_pixels)


def fit(image: Image.Image, size: int, most: int | None = None) -> np.ndarray:
    """Resize so that the short side is `size` (bicubic, antialiased), unless it is; enlarge small images.

    With `most`, a short side from `size` to that stays as it is, and a longer one becomes `most`.

    Returns:
        The pixels, (H, W, 3) uint8 with min(H, W) == size, or from size to most.

    Raises:
        UnreadableError: the result would exceed `MAX_PIXELS`, or be enlarged and longer than `MAX_ASPECT` times `size`.
    """
    short, long = sorted(image.size)
    size = min(max(size, short), most or size)
    if short != size:
        scaled = max(size, round(long * size / short))
        _check_pixels(size * scaled, f"{scaled} pixels along its long side at size {size}")
        if short < size and long > MAX_ASPECT * short:
            described = f"{image.width}x{image.height} pixels"
            raise UnreadableError(f"{described}, over {MAX_ASPECT} times as long as wide and to be enlarged")
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


def _handle(source: bytes | Path) -> io.BytesIO | io.BufferedReader:
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
    return source.open("rb")


def _decode(file: io.BytesIO | io.BufferedReader, max_pixels: int) -> Image.Image:
    _check_icon(file, max_pixels)
    with Image.open(file, formats=_formats()) as image:
        _check_size(image, max_pixels)
        return convert(image)


def _check_icon(file: io.BytesIO | io.BufferedReader, max_pixels: int) -> None:
    """Check the image inside an .ico or .icns file, which Pillow decodes before it tells that image's size."""
    magic = file.read(4)
    file.seek(0)
    starts: list[int] = []
    if magic == b"\x00\x00\x01\x00":
        starts = [entry.offset for entry in IcoImagePlugin.IcoFile(file).entry[:1]]
    elif magic == b"icns":
        icon = IcnsImagePlugin.IcnsFile(file)
        starts = [icon.dct[kind][0] for kind, _ in icon.SIZES[icon.bestsize()] if kind in icon.dct]
    for start in starts:
        file.seek(start)
        # What is in none of the three formats is of a size that the icon's header tells.
        with suppress(UnidentifiedImageError):
            _check_size(Image.open(io.BytesIO(file.read()), formats=("PNG", "JPEG2000", "DIB")), max_pixels)
    file.seek(0)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    described = f"{image.width}x{image.height} pixels"
    if max(image.size) > MAX_SIDE:
        raise UnreadableError(f"{described}, over the limit of {MAX_SIDE:,} pixels per side")
    _check_pixels(image.width * image.height, described, max_pixels)
    if any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ())):
        _check_pixels(image.width * image.height, f"{described} of {image.format}", SLOW_PIXELS)


def _check_pixels(pixels: int, described: str, most: int = MAX_PIXELS) -> None:
    if pixels > most:
        raise UnreadableError(f"{described}, over the limit of {most // 10**6} megapixels")


def _without_metadata(file: io.BytesIO | io.BufferedReader) -> io.BytesIO | None:
    """A PNG file without its profiles and texts; None if it has none, or is of another format."""
    file.seek(0)
    if file.read(8) != _PNG:
        return None
    kept, dropped = [_PNG], False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in _UNUSED:
            dropped = True
            file.seek(length + 4, io.SEEK_CUR)
        else:
            kept += [head, file.read(length + 4)]
    return io.BytesIO(b"".join(kept)) if dropped else None


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except UnreadableError:
        raise
    # A damaged file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error, KeyError.
    except Exception as error:
        raise UnreadableError(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+ pixels", str(error))
        return f"{pixels.group() if pixels else 'too large'}, over the limit of {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in str(error).lower():
        return "truncated"
    lines = str(error).splitlines()
    return f"damaged: {lines[0] if lines else type(error).__name__}"
