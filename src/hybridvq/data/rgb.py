"""An image that Pillow has opened → 8-bit RGB pixels, upright, on white; the policy stands in `decode`."""

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

_WHITE = (255, 255, 255)
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # how Pillow widens a PNG's 2 and 4 bits to 8
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the EXIF orientation


class UnreadableError(Exception):
    """An image that cannot be decoded; its text is the reason alone, to which the caller adds the name."""


def convert(image: Image.Image) -> Image.Image:
    """An opened image as RGB and upright, read from its file if it still is to be; itself if nothing has to change.

    Raises:
        UnreadableError: its pixels have no known range.
        Exception: whatever Pillow makes of a damaged file.
    """
    if not image.width or not image.height:
        raise UnreadableError("no pixels")
    raw = _raw_mode(image)
    key = image.info.get("transparency")
    low = _low_bytes(image) if raw == "RGB;16B" and key is not None else None
    image.load()
    if image.mode == "F":
        raise UnreadableError("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        rgb = _from_16_bits(image)
    elif low is not None:
        rgb = image.convert("RGB")
        _whiten(rgb, ((np.asarray(image) == np.array(key) // 256) & (low == np.array(key) % 256)).all(2))
    elif raw in _GREY_STEPS and key is not None:
        rgb = image.convert("RGB")
        _whiten(rgb, np.asarray(image) == key * _GREY_STEPS[raw])
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", image.size, (*_WHITE, 255)), rgba).convert("RGB")
    else:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    turn = _TURNS.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of a PNG file that is still to be read are stored; empty otherwise."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0].args) if image.format == "PNG" and tiles else ""


def _low_bytes(image: Image.Image) -> np.ndarray:
    """The low bytes that Pillow drops of 16-bit colors in a PNG file that is still to be read: (H, W, 3) uint8."""
    assert isinstance(image, ImageFile.ImageFile)
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    twin = Image.open(image.fp, formats=("PNG",))
    assert isinstance(twin, ImageFile.ImageFile)
    twin.tile = [tile._replace(args="RGB;16L") for tile in twin.tile]
    low = np.array(twin)
    image.fp.seek(place)
    return low


def _whiten(rgb: Image.Image, transparent: np.ndarray) -> None:
    rgb.paste(_WHITE, mask=Image.fromarray(transparent))


def _from_16_bits(image: Image.Image) -> Image.Image:
    values, key = np.asarray(image), image.info.get("transparency")
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableError("32-bit pixels, whose range is unknown")
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    most = 4095 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 65535
    scaled = ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        scaled = 255 - scaled
    rgb = Image.fromarray(scaled).convert("RGB")
    if key is not None:
        _whiten(rgb, values == key)
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    # A damaged EXIF block says nothing about the pixels, which have been read by now.
    except Exception:
        return 1
