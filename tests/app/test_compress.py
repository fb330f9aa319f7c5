"""Real files, beside others of their size; and what such a file is said to hold."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from codec.models import photo
from hybridvq import CodecError, CodecSettings, ConfigError
from hybridvq.app import compress
from hybridvq.app.picture import Picture
from hybridvq.codec import Draw
from hybridvq.codec.choose import Chooser
from hybridvq.codec.rivals import encode, nearest_quality


@pytest.fixture
def picture():
    return Picture("my cat.png", photo(96, 128))


def test_files_and_numbers(loaded, picture):
    own, *rivals = compress.compress(loaded.model, picture, CodecSettings(), Draw())
    assert own.data == loaded.model.codec.compress(picture.pixels)
    np.testing.assert_array_equal(own.pixels, loaded.model.codec.decompress(own.data))
    assert [rival.title for rival in rivals] == ["JPEG", "WebP"]
    for rival in rivals:
        with Image.open(io.BytesIO(rival.data)) as image:
            assert image.format == rival.title.upper()
            np.testing.assert_array_equal(rival.pixels, image.convert("RGB"))
    error = ((picture.pixels / 127.5 - own.pixels / 127.5) ** 2).mean()
    psnr, rate = 10 * np.log10(4 / error), 8 * len(own.data) / (96 * 128)
    assert own.cells(picture.pixels)[1:4] == [f"{len(own.data):,}", f"{rate:.3f}", f"{psnr:.2f} dB"]


def test_lambda_and_target_take_no_more_bytes(loaded, picture):
    """Of any model; how many fewer, or whether any, is for its training to say."""
    power = Chooser(loaded.model.codec.tokenizer.quantizer, loaded.model.codec.tables, 1, 0.0).power()
    weights = (0.0, compress.highest_rate_weight(loaded.model.codec), 64 * power)
    nearest, *weighed = (
        len(compress.compress(loaded.model, picture, CodecSettings(rate_weight=w), Draw())[0].data) for w in weights
    )
    assert max(weighed) <= nearest
    for most in (nearest, nearest + 100, (nearest + weighed[-1]) / 2):
        met, *_ = compress.compress(loaded.model, picture, CodecSettings(target_bpp=8 * most / (96 * 128)), Draw())
        assert len(met.data) <= min(most, nearest)
    with pytest.raises(ConfigError, match=r"target_bpp 0\.001 is out of reach"):
        compress.compress(loaded.model, picture, CodecSettings(target_bpp=0.001), Draw())


def test_the_nearest_quality(picture):
    sizes = {q: len(encode("JPEG", Image.fromarray(picture.pixels), q)) for q in range(1, 96)}
    for wanted in (1, 1000, 1500, 2345, 10**6):
        found = nearest_quality(sizes.__getitem__, wanted, 1, 95)
        assert abs(sizes[found] - wanted) == min(abs(size - wanted) for size in sizes.values())


def test_a_file_is_opened(loaded, picture, tmp_path):
    data = loaded.model.codec.compress(picture.pixels)
    (tmp_path / "a.hvq").write_bytes(data)
    page = compress.open_file(loaded, tmp_path / "a.hvq", 0, 1)
    assert "K = 120, L = 4, 1 of 1 stages" in page
    sizes = [int(cell.replace(",", "")) for cell in re.findall(r"<td>([\d,]+)</td>", page)]
    assert sum(sizes[:-1]) == sizes[-1] == len(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-3], "a.hvq is cut off"),
        (lambda data: b"junk", "a.hvq is not an .hvq file"),
        (lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:], "a.hvq is damaged"),
    ],
)
def test_what_is_no_file(loaded, picture, tmp_path, change, message):
    (tmp_path / "a.hvq").write_bytes(change(loaded.model.codec.compress(picture.pixels)))
    with pytest.raises(CodecError, match=f"^{message}"):
        compress.open_file(loaded, tmp_path / "a.hvq", 0, 1)


def test_a_file_of_another_model(loaded, picture, tmp_path):
    (tmp_path / "a.hvq").write_bytes(loaded.baseline.codec.compress(picture.pixels))
    assert "K = 64" in compress.open_file(loaded, tmp_path / "a.hvq", 0, 1)
    without = replace(loaded, baseline=loaded.model)
    with pytest.raises(CodecError, match=r"a\.hvq was made by the model"):
        compress.open_file(without, tmp_path / "a.hvq", 0, 1)


def test_a_model_without_tables(bare, picture):
    with pytest.raises(CodecError, match=r"holds no codec\.safetensors"):
        compress.compress(bare, picture, CodecSettings(), Draw())


def test_the_page_keeps_the_file_within_itself(loaded, picture):
    coded = compress.compress(loaded.model, picture, CodecSettings(), Draw())
    page = compress.render(loaded.model, picture, coded)
    assert 'download="my cat.hvq" href="data:application/octet-stream;base64,' in page
    assert page.count("data:image/png;base64,") == 4
