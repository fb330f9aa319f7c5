"""The README's picture shows what files hold, the last columns at the same bytes."""

import io
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from codec import hybrids, models
from hybridvq.codec import read

PICTURE = runpy.run_path(str(Path(__file__).parents[1] / "docs/picture.py"))


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return hybrids.codec(), models.load(models.save_codec(tmp_path_factory.mktemp("vq"), "vector", f=8))


@pytest.fixture(scope="module")
def columns(codecs):
    return PICTURE["columns"](models.photo(192, 224), *codecs)


def test_the_columns_hold_what_files_give(codecs, columns):
    vector, pixels = codecs[1], models.photo(192, 224)
    original, preview, guess, whole, other, jpeg = columns
    data = vector.compress(pixels)
    assert read(data)[0].height == 192
    assert (original.size, other.size) == (192 * 224 * 3, len(data))
    np.testing.assert_array_equal(original.pixels, pixels)
    np.testing.assert_array_equal(other.pixels, vector.decompress(data))
    assert preview.size == guess.size < whole.size <= other.size
    assert abs(jpeg.size - other.size) < 0.1 * other.size or jpeg.remark == "lowest quality:"
    assert len({column.pixels.tobytes() for column in columns}) == 6
    assert original.numbers(original.pixels) == "24 bpp"
    error = np.mean((other.pixels / 127.5 - pixels / 127.5) ** 2)
    assert f"{10 * np.log10(4 / error):.1f} dB" in other.numbers(original.pixels)


@pytest.mark.parametrize(("share", "remark"), [(1.0, ""), (0.75, "lowest quality:")])
def test_a_jpeg_that_is_still_larger_is_said_to_be(codecs, share, remark):
    pixels, buffer = models.photo(192, 224), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=1, optimize=True)
    lowest = len(buffer.getvalue())
    other = SimpleNamespace(compress=lambda _: bytes(int(share * lowest)), decompress=lambda _: Image.fromarray(pixels))
    jpeg = PICTURE["columns"](pixels, codecs[0], other)[-1]
    assert (jpeg.remark, jpeg.size) == (remark, lowest)


def test_rows_are_drawn(columns):
    side, part = PICTURE["SIDE"], PICTURE["PART"]
    shown = PICTURE["drawn"]([(columns, (0, 0))] * 2)
    assert shown.width >= 6 * side
    assert shown.height >= 2 * side
    corner = np.asarray(shown)[-side:, :side]
    np.testing.assert_array_equal(corner[::2, ::2], models.photo(192, 224)[:part, :part])
