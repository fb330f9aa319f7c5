import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridvq.data import decode as module
from hybridvq.data import read_image, to_rgb
from hybridvq.data.decode import UnreadableError, decode, fit, image_extensions
from hybridvq.errors import DataError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return np.asarray(decode(encoded(image, kind, **options)))


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_rgb_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(Image.fromarray(pixels)), pixels)


def test_grayscale_is_repeated() -> None:
    gray = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.testing.assert_array_equal(decoded(Image.fromarray(gray)), np.repeat(gray[..., None], 3, axis=2))


def test_bilevel_is_black_and_white() -> None:
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert decoded(picture).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_palette_is_looked_up() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    assert decoded(picture).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_transparent_palette_entry_becomes_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    assert decoded(picture, transparency=1).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize(("alpha", "expected"), [(255, [200, 0, 100]), (0, [255, 255, 255]), (128, [227, 127, 177])])
def test_alpha_is_composited_on_white(alpha: int, expected: list[int]) -> None:
    (pixel,) = decoded(Image.new("RGBA", (1, 1), (200, 0, 100, alpha)))[0]
    np.testing.assert_allclose(pixel, expected, atol=1)


def test_gray_with_alpha_is_composited_on_white() -> None:
    assert decoded(Image.new("LA", (1, 1), (90, 0))).tolist() == [[[255, 255, 255]]]


def test_16_bits_are_scaled_to_8() -> None:
    values = np.array([[0, 128, 129, 32768, 65535]], dtype=np.uint16)
    expected = np.rint(values * (255 / 65535)).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decoded(Image.fromarray(values), kind)[..., 0], expected)


def test_32_bit_integers_are_read_as_16_bits_if_they_fit() -> None:
    values = np.array([[0, 65535]], dtype=np.int32)
    assert decoded(Image.fromarray(values), "TIFF")[..., 1].tolist() == [[0, 255]]
    with pytest.raises(UnreadableError, match="32-bit"):
        decoded(Image.fromarray(values + 1), "TIFF")


def test_floating_point_is_refused() -> None:
    with pytest.raises(UnreadableError, match="floating-point"):
        decoded(Image.new("F", (2, 2)), "TIFF")


def test_cmyk_is_converted() -> None:
    assert decoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF").tolist() == [[[255, 0, 0]]]


def test_exif_orientation_6_turns_clockwise() -> None:
    picture = Image.new("RGB", (2, 1), (255, 0, 0))
    picture.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(picture, exif=exif).tolist() == [[[255, 0, 0]], [[0, 0, 255]]]


def test_damaged_exif_is_ignored() -> None:
    picture = Image.new("RGB", (8, 8), (10, 200, 30))
    data = encoded(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f" + b"\x01" * 20)
    with module.without_warnings():
        assert decode(data).size == (8, 8)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    assert decoded(frames[0], "GIF", save_all=True, append_images=frames[1:])[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], "truncated"),
        (encoded(Image.effect_noise((64, 64), 90))[:900], "truncated"),
        (png_header(12_000, 12_000), "12000x12000 pixels, over the limit of 120 megapixels"),
        (png_header(40_000, 40_000), "1600000000 pixels, over the limit of 120 megapixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    ],
)
def test_unreadable_bytes_give_the_reason(data: bytes, reason: str) -> None:
    with module.without_warnings(), pytest.raises(UnreadableError) as caught:
        decode(data)
    assert reason in str(caught.value)


def test_any_damage_is_unreadable_and_nothing_else() -> None:
    whole = encoded(Image.effect_noise((16, 16), 90), "TIFF")
    generator = np.random.default_rng(0)
    reasons = []
    with module.without_warnings():
        for _ in range(200):
            damaged = bytearray(whole)
            for at in generator.integers(0, len(whole), 8):
                damaged[at] = generator.integers(256)
            try:
                decode(bytes(damaged))
            except UnreadableError as error:
                reasons.append(str(error))
    assert reasons
    assert not any("\n" in reason or " at 0x" in reason for reason in reasons)


def test_read_image_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.png cannot be read as an image \(no such file\)"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="not a regular file"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")
    Image.new("L", (3, 2)).save(tmp_path / "good.png")
    assert read_image(tmp_path / "good.png").shape == (2, 3, 3)
    assert read_image(tmp_path / "good.png").flags.writeable


def test_large_images_pass_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    Image.new("L", (10, 10)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.png").shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(30, 20, (8, 12, 3)), (20, 30, (12, 8, 3)), (4, 4, (8, 8, 3)), (8, 9, (9, 8, 3))],
)
def test_fit_makes_the_short_side_the_size(width: int, height: int, shape: tuple[int, int, int]) -> None:
    assert fit(Image.new("RGB", (width, height)), 8).shape == shape


def test_fit_is_antialiased() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    fine = fit(Image.fromarray(checks.astype(np.uint8)).convert("RGB"), 8)
    assert np.abs(fine.astype(int) - 127).max() < 10


def test_fit_keeps_pixels_of_the_right_size() -> None:
    picture = Image.effect_noise((8, 9), 90).convert("RGB")
    np.testing.assert_array_equal(fit(picture, 8), np.asarray(picture))


def test_fit_refuses_what_would_grow_beyond_the_limit() -> None:
    with pytest.raises(UnreadableError, match="long side"):
        fit(Image.new("RGB", (1, 10_000)), 200)


def test_extensions_are_those_of_images() -> None:
    extensions = image_extensions()
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif"} <= extensions
    assert not {".txt", ".csv", ".json", ".md", ".pdf", ".eps", ".h5", ".mpg", ".parquet"} & extensions


@pytest.mark.parametrize("mode", ["RGB", "I;16", "RGBA"])
def test_an_image_without_pixels_is_refused(mode: str) -> None:
    with pytest.raises(DataError, match="the image is 0x5 pixels and so has none; give another one"):
        to_rgb(Image.new(mode, (0, 5)))
