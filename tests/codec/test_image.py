"""Images to files and back: every size and kind, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from codec import models, small
from codec.models import tokens_of
from hybridvq import Codec, CodecError, CodecSettings, ConfigError, DataError, ShapeError, compress, decompress
from hybridvq.codec import read
from hybridvq.codec.format import write
from hybridvq.quantizers import Tokens
from hybridvq.tokenizer import weight_hash
from test_tiles import SIZES


@pytest.mark.parametrize("mode", ["static", "contextual"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_comes_back_is_the_decoded_tokens(codec, height, width, mode):
    """The independent reference: padded by numpy, through the tokenizer whole, cut and rounded."""
    pixels, f = models.photo(height, width), codec.tokenizer.downsampling
    data = codec.compress(pixels, CodecSettings(mode=mode))
    padded = np.pad(pixels, ((0, -height % f), (0, -width % f), (0, 0)), mode="reflect")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        tokens = codec.tokenizer.encode(x)
        x_hat = codec.tokenizer.decode(tokens)[0].permute(1, 2, 0)[:height, :width]
    codes, levels = tokens_of(codec, data)
    np.testing.assert_array_equal(codes, tokens.codes[0])
    np.testing.assert_array_equal(levels, tokens.gains[0])
    image = codec.decompress(data)
    assert (image.mode, image.size) == ("RGB", (width, height))
    assert np.abs(np.asarray(image) - ((x_hat + 1) * 127.5).clamp(0, 255).numpy()).max() < 0.51


def test_models_without_gains(vector):
    pixels = models.photo(30, 50)
    data = vector.compress(pixels)
    assert read(data)[0].levels is None
    assert vector.decompress(data).size == (50, 30)
    lighter = vector.compress(pixels, CodecSettings(rate_weight=0.3))
    assert len(lighter) <= len(data)


def test_the_two_functions_take_a_folder_or_a_codec(folder, codec):
    pixels = models.photo(9, 11)
    data = compress(Image.fromarray(pixels), folder)
    assert data == compress(pixels, codec)
    np.testing.assert_array_equal(decompress(data, folder), decompress(data, codec))


def test_large_images_are_computed_in_tiles(codec, monkeypatch):
    pixels = models.photo(100, 75)
    whole = tokens_of(codec, codec.compress(pixels))
    monkeypatch.setattr("hybridvq.tiles.TILE_PIXELS", 32)
    for tiled, expected in zip(tokens_of(codec, codec.compress(pixels)), whole, strict=True):
        assert (tiled != expected).mean() < 0.01, "but where a vector lies half-way between two codes or levels"


# Colors


def test_a_gray_image_comes_back_gray(codec):
    gray = models.photo(40, 50)[..., 0]
    files = {codec.compress(image) for image in (Image.fromarray(gray), np.stack([gray] * 3, 2))}
    assert len(files) == 1, "gray is what the pixels are, whatever holds them"
    (data,) = files
    image = codec.decompress(data)
    assert (image.mode, image.size) == ("L", (50, 40))
    with torch.inference_mode():
        x_hat = codec.tokenizer.decode(Tokens(*(torch.from_numpy(part)[None] for part in tokens_of(codec, data))))
    assert np.abs(np.asarray(image) - ((x_hat[0, :, :40, :50].mean(0) + 1) * 127.5).clamp(0, 255).numpy()).max() < 0.51
    one_pixel = np.stack([gray] * 3, 2)
    one_pixel[-1, -1, 2] ^= 1
    assert codec.decompress(codec.compress(one_pixel)).mode == "RGB"


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA", "1", "I;16"])
def test_other_modes_become_rgb_as_data_says(codec, mode, tmp_path):
    from hybridvq.data import read_image

    rgb = Image.fromarray(models.photo(20, 30))
    if mode == "I;16":
        image = Image.fromarray(models.photo(20, 30)[..., 0].astype(np.uint16) * 257)
    else:
        image = rgb.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(models.photo(20, 30)[..., 1]))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    assert codec.compress(image) == codec.compress(read_image(path))


def test_a_photograph_on_its_side(codec):
    image = Image.fromarray(models.photo(20, 30))
    exif = image.getexif()
    exif[0x0112] = 6
    turned = codec.decompress(codec.compress(image))
    assert turned.size == (20, 30)
    assert image.size == (30, 20), "the caller's stays"


def test_wrong_images(codec):
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), int), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(
            ShapeError, match=r"the image is .* of shape .*; give the path of a file, a Pillow image, or \(height"
        ):
            codec.compress(array)
    for other in ([[[0, 0, 0]]], torch.zeros(4, 4, 3), None):
        with pytest.raises(ShapeError, match=r"the image is .*; give the path of a file, .* with at least one pixel"):
            codec.compress(other)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image \(no such file\)"):
        codec.compress("a.png")
    with pytest.raises(DataError, match="floating-point pixels"):
        codec.compress(Image.new("F", (4, 4)))
    with pytest.raises(DataError, match="0x4 pixels and so has none"):
        codec.compress(Image.new("RGB", (0, 4)))


def test_a_truncated_image_that_is_still_to_be_read(codec, tmp_path):
    Image.fromarray(models.photo(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(DataError, match=r"cannot be read \(truncated\)"):
        codec.compress(image)


# Files of another model, and damaged ones


def test_files_of_another_model_or_other_tables(codec, staged, tmp_path):
    data = codec.compress(models.photo(8, 8))
    with pytest.raises(CodecError, match=r"cat.hvq was made by the model .*; give the model that made it"):
        staged.decompress(data, "cat.hvq")
    header, streams = read(data)
    vars(header)["tables"] = b"1234"
    with pytest.raises(CodecError, match=r"was made with the tables 31323334 .* give the codec.safetensors"):
        codec.decompress(write(header, streams))
    header, streams = read(data)
    vars(header)["color"] = 7
    with pytest.raises(CodecError, match="cannot follow"):
        codec.decompress(write(header, streams))


def test_tables_of_another_model(codec, staged, vector, tmp_path):
    for model, tables, key in (
        (codec, staged.tables, "stages is 3, and this one's is 1"),
        (staged, codec.tables, "stages is 1, and this one's is 3"),
        (codec, replace(codec.tables, levels=5), "levels is 5, and this one's is 4"),
        (vector, codec.tables, "codebook_size is 120, and this one's is 64"),
        (codec, small.tables(), "codebook_size is 16, and this one's is 120"),
    ):
        with pytest.raises(CodecError, match=rf"the tables \(codec.safetensors\) are of a model whose {key}; run"):
            Codec(model.tokenizer, tables)
    codec.tokenizer.save_pretrained(tmp_path)
    replace(small.tables(), model=weight_hash(tmp_path)).save(tmp_path)
    with pytest.raises(CodecError, match="codebook_size is 16"):
        Codec.load(tmp_path, "cpu")


def test_long_and_thin_images(codec, monkeypatch):
    """What `decompress` would not believe is not made; static tables have no waves to wait for."""
    monkeypatch.setattr("hybridvq.codec.format.FREE_WAVES", 20)
    monkeypatch.setattr("hybridvq.codec.format.MAX_PIXELS", 4000)
    with pytest.raises(
        ConfigError, match="an image of 100x1 pixels is too long and thin for contextual; use mode static"
    ):
        codec.compress(models.photo(1, 100))
    data = codec.compress(models.photo(1, 100), CodecSettings(mode="static"))
    assert codec.decompress(data).size == (100, 1)
    assert codec.decompress(codec.compress(models.photo(24, 40))).size == (40, 24)


def test_a_model_without_tables(tmp_path, codec):
    codec.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CodecError, match=r"holds no codec.safetensors"):
        Codec.load(tmp_path)


def test_images_larger_than_believed(codec):
    data = codec.compress(models.photo(20, 20))
    with pytest.raises(CodecError, match="raise max_pixels"):
        codec.decompress(data, max_pixels=399)
    assert codec.decompress(data, max_pixels=400).size == (20, 20)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="max_pixels is"):
            codec.decompress(data, max_pixels=wrong)
