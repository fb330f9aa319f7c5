"""What becomes of transparent colors, depths, metadata and damage, whoever opened the image."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from hybridvq.data import to_rgb
from hybridvq.data.decode import UnreadableError, decode, without_warnings
from hybridvq.errors import DataError

from .written import gray_tiff, png

WHITE, BLACK = [255, 255, 255], [0, 0, 0]
GRAY, COLOR, PALETTE = 0, 2, 3


def both(data: bytes) -> list[list[int]]:
    """The first row of a file, decoded here and as Pillow opened it, which must agree."""
    opened = np.asarray(to_rgb(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(np.asarray(decode(data)), opened)
    return opened[0].tolist()


# In each row the first pixel has the transparent color, the second differs from it in the last bit.
@pytest.mark.parametrize(
    ("depth", "row", "key", "second"),
    [(1, b"\x40", 0, 255), (2, b"\x90", 2, 85), (4, b"\x98", 9, 8 * 17), (8, b"\x4d\x4c", 0x4D, 0x4C)],
)
def test_a_transparent_gray_is_white_at_every_depth(depth: int, row: bytes, key: int, second: int) -> None:
    data = png(2, 1, depth, GRAY, b"\0" + row, (b"tRNS", struct.pack(">H", key)))
    assert both(data) == [WHITE, [second] * 3]


def test_a_transparent_gray_of_16_bits_is_white_and_its_neighbors_are_not() -> None:
    row = struct.pack(">4H", 0x1234, 0x1235, 0x1334, 0)
    data = png(4, 1, 16, GRAY, b"\0" + row, (b"tRNS", struct.pack(">H", 0x1234)))
    assert both(data) == [WHITE, [18] * 3, [19] * 3, BLACK]


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_color_is_white_at_every_depth(depth: int) -> None:
    format = ">3H" if depth == 16 else ">3B"
    key = (0x1234, 0x5678, 0x9ABC) if depth == 16 else (1, 2, 3)
    near = (*key[:2], key[2] + 1)
    rows = b"".join(b"\0" + struct.pack(format, *key) + struct.pack(format, *near) for _ in range(2))
    data = png(2, 2, depth, COLOR, rows, (b"tRNS", struct.pack(">3H", *key)))
    assert both(data) == [WHITE, [value >> (depth - 8) for value in near]]


def test_a_transparent_palette_entry_is_white_at_every_depth() -> None:
    for depth, row in ((1, b"\x40"), (2, b"\x10"), (4, b"\x01"), (8, b"\0\1")):
        data = png(2, 1, depth, PALETTE, b"\0" + row, (b"PLTE", bytes([9, 9, 9, 7, 7, 7])), (b"tRNS", b"\0"))
        assert both(data) == [WHITE, [7] * 3]


@pytest.mark.parametrize(("bits", "black", "data"), [(1, 0, b"\x40"), (8, 0, b"\0\xff"), (16, 0, b"\0\0\xff\xff")])
def test_white_is_zero_is_inverted_at_every_depth(bits: int, black: int, data: bytes) -> None:
    white_is_zero, black_is_zero = (both(gray_tiff(bits, photometric, data, 2)) for photometric in (0, 1))
    assert white_is_zero == [WHITE, BLACK]
    assert black_is_zero == [BLACK, WHITE]


def test_12_bits_are_scaled_by_their_own_range() -> None:
    assert both(gray_tiff(12, 1, b"\xff\xf8\x00", 2)) == [WHITE, [128] * 3]


def test_an_upright_tiff_is_turned_once() -> None:
    picture = Image.new("RGB", (2, 1), (255, 0, 0))
    picture.putpixel((1, 0), (0, 0, 255))
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", tiffinfo={274: 6})
    assert np.asarray(decode(buffer.getvalue())).tolist() == [[[255, 0, 0]], [[0, 0, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(orientation: int) -> None:
    picture = Image.effect_noise((5, 3), 90)
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(buffer)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode(buffer.getvalue())), np.asarray(expected))


LARGE = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"profile\0\0" + LARGE),
        (b"zTXt", b"Comment\0\0" + LARGE),
        (b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
        (b"tEXt", b"Comment\0" + bytes(70_000_000)),
        (b"iTXt", b"no more"),
        (b"zTXt", b"Comment\0\7" + LARGE),
    ],
    ids=["profile", "compressed text", "unicode text", "70 MB of text", "damaged text", "unknown compression"],
)
@pytest.mark.parametrize("late", [False, True])
def test_metadata_that_nobody_needs_does_no_harm(chunk: tuple[bytes, bytes], late: bool) -> None:
    early, after = ((), (chunk,)) if late else ((chunk,), ())
    row = b"\0" + bytes([1, 2, 3])
    assert np.asarray(decode(png(1, 1, 8, COLOR, row, *early, after=after))).tolist() == [[[1, 2, 3]]]


def test_a_damaged_png_is_still_damaged_without_its_metadata() -> None:
    data = png(64, 64, 8, GRAY, b"\0", (b"iCCP", b"profile\0\0" + LARGE))
    with without_warnings(), pytest.raises(UnreadableError, match="truncated"):
        decode(data)


def truncated(kind: str, mode: str = "RGB") -> Image.Image:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert(mode).save(buffer, kind)
    return Image.open(io.BytesIO(buffer.getvalue()[:1500]))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_a_truncated_image_that_is_still_to_be_read_is_a_data_error(kind: str, mode: str) -> None:
    image = truncated(kind, mode)
    with pytest.raises(DataError, match=r"the image cannot be read \(.*\); give another one"):
        to_rgb(image)


def test_a_closed_image_is_a_data_error() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    image = Image.open(buffer)
    image.close()
    with pytest.raises(DataError, match="the image cannot be read"):
        to_rgb(image)
