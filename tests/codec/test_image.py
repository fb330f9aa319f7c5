"""Images to files and back: every size and kind, the dials, the targets, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from codec import models
from codec.test_tiles import SIZES
from hybridvq import Codec, CodecError, CodecSettings, ConfigError, DataError, ShapeError, compress, decompress
from hybridvq.codec import TokenCoder, read, truncate
from hybridvq.codec.format import write


def psnr(a, b) -> float:
    return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


def tokens_of(codec: Codec, data: bytes):
    header, streams = read(data)
    return TokenCoder(codec.tables, header.mode, header.gain_step).decode(streams, header.grid)


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
    assert np.abs(np.asarray(image) - ((x_hat + 1) * 127.5).numpy()).max() < 0.51


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
    whole = codec.compress(pixels)
    monkeypatch.setattr("hybridvq.codec.tiles.TILE_PIXELS", 32)
    assert codec.compress(pixels) == whole


# Colours


def test_a_grey_image_comes_back_grey(codec):
    grey = models.photo(40, 50)[..., 0]
    files = {codec.compress(image) for image in (Image.fromarray(grey), np.stack([grey] * 3, 2))}
    assert len(files) == 1, "grey is what the pixels are, whatever holds them"
    image = codec.decompress(files.pop())
    assert (image.mode, image.size) == ("L", (50, 40))
    assert psnr(image, grey) > 10
    one_pixel = np.stack([grey] * 3, 2)
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
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ShapeError, match=r"the image is .* of shape .*; give \(height, width, 3\) uint8"):
            codec.compress(array)
    with pytest.raises(DataError, match="floating-point pixels"):
        codec.compress(Image.new("F", (4, 4)))
    with pytest.raises(DataError, match="no pixels"):
        codec.compress(Image.new("RGB", (0, 4)))


def test_a_truncated_image_that_is_still_to_be_read(codec, tmp_path):
    Image.fromarray(models.photo(64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(DataError, match=r"cannot be read \(truncated\)"):
        codec.compress(image)


# Dials


def test_fewer_stages_are_the_first_of_all(staged):
    pixels = models.photo(64, 48)
    whole = staged.compress(pixels)
    sizes, errors = [], []
    for stages in (1, 2, 3):
        data = staged.compress(pixels, CodecSettings(stages=stages))
        assert data == truncate(whole, stages)
        sizes.append(len(data))
        errors.append(psnr(staged.decompress(data), pixels))
    assert sizes == sorted(set(sizes))
    assert data == whole
    with pytest.raises(ConfigError, match="stages is 4, and the model has 3"):
        staged.compress(pixels, CodecSettings(stages=4))


@pytest.mark.parametrize("mode", ["static", "contextual"])
def test_fewer_gain_levels_take_fewer_bits(staged, mode):
    pixels = models.photo(96, 96)
    sizes = []
    for gain_step, kept in ((0, {0, 1, 2, 3}), (1, {1, 3}), (2, {1, 3}), (3, {2})):
        data = staged.compress(pixels, CodecSettings(gain_step=gain_step, mode=mode))
        _, levels = tokens_of(staged, data)
        assert set(np.unique(levels)) <= kept
        assert staged.decompress(data).size == (96, 96)
        sizes.append(len(data))
    assert sizes[0] > sizes[1] > sizes[3]


def test_no_gain_step_without_gains(vector):
    with pytest.raises(ConfigError, match="gain_step is 1, and the model has no gain levels"):
        vector.compress(models.photo(8, 8), CodecSettings(gain_step=1))


def test_the_weighed_choice_is_the_exhaustive_one(staged):
    """Every pair of code and level, stage after stage, in float64."""
    from hybridvq.codec.choose import Chooser
    from hybridvq.quantizers.base import flatten

    quantizer, weight = staged.tokenizer.quantizer, 0.2
    x = torch.from_numpy(models.photo(16, 16)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        z = staged.tokenizer.encoder(x)
        tokens = Chooser(quantizer, staged.tables, 3, 1, weight)(z)
        r = flatten(quantizer.in_code_space(z)).double().numpy()
    for s in range(3):
        values = quantizer.gain_levels[s].values.double().numpy()
        directions = quantizer.directions.weight.double().numpy()
        shares = staged.tables.of_stages[s].shares.astype(float)
        level_shares = shares.sum(1)[[1, 3]]
        best = []
        for row, (level, code) in zip(
            r, zip(tokens.gains[0, s].flatten(), tokens.codes[0, s].flatten(), strict=True), strict=True
        ):
            costs = {}
            for i, q in enumerate((1, 3)):
                p = shares[q] / shares[q].sum() * 255 / 256 + 1 / 256 / shares.shape[1]
                bits = -np.log2(level_shares[i] / level_shares.sum()) - np.log2(p)
                miss = ((row - values[q] * directions) ** 2).sum(1)
                costs |= {(q, k): miss[k] + weight * bits[k] for k in range(len(directions))}
            chosen = (int(level), int(code))
            best.append(costs[chosen] - min(costs.values()))
            row -= values[chosen[0]] * directions[chosen[1]]
        assert max(best) < 0.02 * weight, "as good as the best, to the rounding of the tables"


def test_a_larger_weight_takes_fewer_bits_and_errs_more(codec):
    pixels = models.photo(96, 96)
    files = [codec.compress(pixels, CodecSettings(rate_weight=w, mode="static")) for w in (1e-9, 0.1, 1.0, 1e6)]
    sizes, errors = [len(f) for f in files], [psnr(codec.decompress(f), pixels) for f in files]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.5 * sizes[-1]
    assert errors[0] > errors[-1]


# Targets


@pytest.mark.parametrize("mode", ["static", "contextual"])
def test_a_target_rate(staged, mode):
    pixels = models.photo(128, 128)

    def rate(**settings) -> float:
        return 8 * len(staged.compress(pixels, CodecSettings(mode=mode, **settings))) / 128**2

    least, one, most = rate(stages=1, rate_weight=1e6), rate(stages=1), rate()
    for target in ((least + one) / 2, (one + most) / 2):
        assert 0.9 * target < rate(target_bpp=target) <= target
    assert rate(target_bpp=2 * most) == most, "more than all there is cannot be spent"
    assert rate(target_bpp=2 * most, stages=1) == one
    with pytest.raises(ConfigError, match=r"target_bpp 0.001 is out of reach: .* to .* bits a pixel; choose"):
        rate(target_bpp=0.001)


def test_a_target_quality(codec):
    pixels = models.photo(128, 128)

    def quality(**settings) -> float:
        return psnr(codec.decompress(codec.compress(pixels, CodecSettings(mode="static", **settings))), pixels)

    most = quality()
    assert most - 0.5 <= quality(target_psnr=most - 0.5) < most - 0.25
    assert quality(target_psnr=1.0) < most - 2, "few bits are enough"
    with pytest.raises(ConfigError, match=r"target_psnr 60 is out of reach: .* to .* dB; choose one between"):
        quality(target_psnr=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"stages": 0}, "stages is 0"),
        ({"gain_step": 16}, "gain_step is 16; it must be at most 15"),
        ({"rate_weight": -1.0}, "rate_weight is -1.0"),
        ({"target_bpp": 0.0}, "target_bpp is 0.0; it must be positive"),
        ({"target_bpp": 1.0, "target_psnr": 30.0}, "cannot both be met"),
        ({"target_bpp": 1.0, "rate_weight": 0.1}, "a target chooses rate_weight itself"),
        ({"mode": "adaptive"}, "mode is 'adaptive'"),
    ],
)
def test_wrong_settings(words, message):
    with pytest.raises(ConfigError, match=message):
        CodecSettings(**words)


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
    vars(header)["colour"] = 7
    with pytest.raises(CodecError, match="cannot follow"):
        codec.decompress(write(header, streams))


def test_a_model_without_tables(tmp_path, codec):
    codec.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CodecError, match=r"holds no codec.safetensors"):
        Codec.load(tmp_path)


def test_images_larger_than_believed(codec):
    data = codec.compress(models.photo(20, 20))
    with pytest.raises(CodecError, match="raise max_pixels"):
        codec.decompress(data, max_pixels=399)
    assert codec.decompress(data, max_pixels=400).size == (20, 20)
