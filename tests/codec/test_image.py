"""Images to files and back: every size and kind, the dials, the targets, and what is refused."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from codec import models, small
from hybridvq import Codec, CodecError, CodecSettings, ConfigError, DataError, ShapeError, compress, decompress
from hybridvq.codec import STATIC, TokenCoder, read, truncate
from hybridvq.codec.choose import Chooser
from hybridvq.codec.format import write
from hybridvq.codec.targets import Attempt, Target, meet
from hybridvq.quantizers import Tokens
from hybridvq.tokenizer import weight_hash
from test_tiles import SIZES

NAN = float("nan")


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


# Colours


def test_a_grey_image_comes_back_grey(codec):
    grey = models.photo(40, 50)[..., 0]
    files = {codec.compress(image) for image in (Image.fromarray(grey), np.stack([grey] * 3, 2))}
    assert len(files) == 1, "grey is what the pixels are, whatever holds them"
    (data,) = files
    image = codec.decompress(data)
    assert (image.mode, image.size) == ("L", (50, 40))
    with torch.inference_mode():
        x_hat = codec.tokenizer.decode(Tokens(*(torch.from_numpy(part)[None] for part in tokens_of(codec, data))))
    assert np.abs(np.asarray(image) - ((x_hat[0, :, :40, :50].mean(0) + 1) * 127.5).clamp(0, 255).numpy()).max() < 0.51
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
@pytest.mark.parametrize("name", ["staged", "rated"])
def test_fewer_gain_levels_take_no_more_bits(name, mode, request):
    codec, pixels = request.getfixturevalue(name), models.photo(96, 96)
    most = len(codec.compress(pixels, CodecSettings(mode=mode)))
    for gain_step, kept in ((1, {1, 3}), (2, {1, 3}), (3, {2})):
        try:
            data = codec.compress(pixels, CodecSettings(gain_step=gain_step, mode=mode))
        except ConfigError as error:
            assert f"gain_step {gain_step} makes a file of" in str(error)  # noqa: PT017
            assert f"all levels make one of {most}; leave it out" in str(error)  # noqa: PT017
            continue
        _, levels = tokens_of(codec, data)
        assert set(np.unique(levels)) <= kept
        assert codec.decompress(data).size == (96, 96)
        assert len(data) <= most


def test_no_gain_step_without_gains(vector):
    with pytest.raises(ConfigError, match="gain_step is 1, and the model has no gain levels"):
        vector.compress(models.photo(8, 8), CodecSettings(gain_step=1))


def test_a_gain_step_that_costs_more_is_refused(codec):
    """All levels cost less as soon as one has nearly all of the probability, and the step leaves that one out."""
    (stage,) = codec.tables.of_stages
    shares = np.ones_like(stage.shares)
    shares[0] = 10**6
    tables = replace(codec.tables, of_stages=(replace(stage, shares=shares),))
    tokenizer = deepcopy(codec.tokenizer)
    tokenizer.quantizer.gain_levels[0].values.copy_(torch.tensor([1.0, 90.0, 91.0, 92.0]))
    with pytest.raises(
        ConfigError, match=r"gain_step 1 makes a file of \d+ bytes, and all levels make one of \d+; leave"
    ):
        Codec(tokenizer, tables).compress(models.photo(96, 96), CodecSettings(gain_step=1, mode="static"))


def test_the_weighed_choice_is_the_exhaustive_one(staged):
    """Every pair of code and level, stage after stage, in float64."""
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
    """Bits and errors of the argmin of their weighed sum, by the tables that it weighs, for weights far apart."""
    quantizer, bits, errors = codec.tokenizer.quantizer, [], []
    x = torch.from_numpy(models.photo(96, 96)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        z = codec.tokenizer.encoder(x)
        for weight in (1e-9, 0.01, 0.1, 1.0, 1e6):
            tokens = Chooser(quantizer, codec.tables, 1, 0, weight)(z)
            errors.append(float((quantizer.in_code_space(z) - quantizer.read(tokens)).double().square().sum()))
            bits.append(TokenCoder(codec.tables, STATIC).cost_bits(tokens.codes[0].numpy(), tokens.gains[0].numpy())[0])
    for before, after in pairwise(range(5)):
        assert bits[after] <= bits[before] * 1.0001
        assert errors[after] >= errors[before] * 0.9999
    assert bits[-1] == pytest.approx(24 * 24 * codec.tables.static_bits(0).min())


@pytest.mark.parametrize("mode", ["static", "contextual"])
@pytest.mark.parametrize("name", ["codec", "staged", "rated", "vector"])
def test_no_weight_makes_a_larger_file_than_none(name, mode, request):
    codec, pixels = request.getfixturevalue(name), models.photo(96, 96)
    most = codec.compress(pixels, CodecSettings(mode=mode))
    for weight in (1e-9, 1e-3, 0.1, 1.0, 1e6):
        data = codec.compress(pixels, CodecSettings(rate_weight=weight, mode=mode))
        assert len(data) < len(most) or data == most


# Targets


@pytest.mark.parametrize("mode", ["static", "contextual"])
@pytest.mark.parametrize("name", ["staged", "rated"])
def test_a_target_rate(name, mode, request):
    """No more bits than that, and no less quality than the plain files have that meet it too."""
    codec, pixels = request.getfixturevalue(name), models.photo(128, 128)

    def measured(**settings) -> tuple[float, float]:
        data = codec.compress(pixels, CodecSettings(mode=mode, **settings))
        return 8 * len(data) / 128**2, psnr(codec.decompress(data), pixels)

    plain = [measured(stages=s + 1) for s in range(codec.tables.stages)]
    least = measured(stages=1, rate_weight=1e6)[0]
    for target in ((least + plain[0][0]) / 2, (plain[0][0] + plain[-1][0]) / 2, 2 * plain[-1][0]):
        rate, quality = measured(target_bpp=target)
        assert rate <= target
        assert quality >= max((q for r, q in plain if r <= target), default=0.0) - 1e-9
    assert measured(target_bpp=2 * plain[-1][0], stages=1) == plain[0]
    with pytest.raises(ConfigError, match=r"target_bpp 0.001 is out of reach: .* to .* bits per pixel; choose"):
        measured(target_bpp=0.001)


@pytest.mark.parametrize("name", ["codec", "staged", "rated"])
def test_a_target_quality(name, request):
    """At least so much, in no more bytes than the plain file takes; little of it in few."""
    codec, pixels = request.getfixturevalue(name), models.photo(128, 128)

    def measured(**settings) -> tuple[int, float]:
        data = codec.compress(pixels, CodecSettings(mode="static", **settings))
        return len(data), psnr(codec.decompress(data), pixels)

    size, most = measured()
    for target in (most - 1e-6, most - 0.5, 1.0):
        smaller, quality = measured(target_psnr=target)
        assert quality >= target
        assert smaller <= size
    assert smaller < size
    with pytest.raises(ConfigError, match=r"target_psnr 60 is out of reach: .* to .* dB; choose one between"):
        measured(target_psnr=60)


def attempt_of(files: dict[tuple[int, bool], tuple[int, float]]):
    """What `meet` tries, of made-up bytes and decibels for each number of stages, plain and weighed."""

    def attempt(stages: int, weight: float) -> Attempt:
        size, quality = files[stages, weight > 0]
        return Attempt(bytes(size), float(size), lambda: quality)

    return attempt


def test_a_target_takes_the_better_of_what_meets_it():
    """Weighing bits may cost some, and what is left of more stages be worth less than all of fewer."""
    files = {(1, False): (10, 30.0), (1, True): (30, 31.0), (2, False): (20, 33.0), (2, True): (12, 29.0)}
    assert len(meet(Target(29.5, is_rate=False), attempt_of(files), 2, 1.0).data) == 10
    assert len(meet(Target(15.0, is_rate=True), attempt_of(files), 2, 1.0).data) == 10
    files[2, False] = (20, 28.0)
    assert len(meet(Target(25.0, is_rate=True), attempt_of(files), 2, 1.0).data) == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"stages": 0}, "stages is 0"),
        ({"stages": 1.0}, "stages is 1.0"),
        ({"stages": True}, "stages is True"),
        ({"gain_step": 16}, "gain_step is 16; it must be at most 15"),
        ({"gain_step": -1}, "gain_step is -1"),
        ({"gain_step": 0.5}, "gain_step is 0.5"),
        ({"gain_step": "1"}, "gain_step is '1'"),
        ({"rate_weight": -1.0}, "rate_weight is -1.0; it must be at least 0"),
        ({"rate_weight": 1e308}, "rate_weight is 1e"),
        ({"rate_weight": float("inf")}, "rate_weight is inf"),
        ({"rate_weight": NAN}, "rate_weight is nan"),
        ({"rate_weight": "0.1"}, "rate_weight is '0.1'"),
        ({"rate_weight": None}, "rate_weight is None"),
        ({"target_bpp": 0.0}, "target_bpp is 0.0; it must be positive"),
        ({"target_bpp": NAN}, "target_bpp is nan"),
        ({"target_bpp": True}, "target_bpp is True"),
        ({"target_psnr": float("inf")}, "target_psnr is inf"),
        ({"target_psnr": "30"}, "target_psnr is '30'"),
        ({"target_bpp": 1.0, "target_psnr": 30.0}, "cannot both be met"),
        (
            {"target_bpp": 1.0, "rate_weight": 0.1},
            "a target chooses what is left out itself; give it without rate_weight",
        ),
        ({"target_psnr": 30.0, "gain_step": 1}, "give it without gain_step"),
        ({"mode": "adaptive"}, "mode is 'adaptive'"),
        ({"mode": None}, "mode is None"),
    ],
)
def test_wrong_settings(codec, words, message):
    """When they are made, and when they are used: what is written into them later is looked at again."""
    with pytest.raises(ConfigError, match=message):
        CodecSettings(**words)
    settings = CodecSettings()
    vars(settings).update(words)
    with pytest.raises(ConfigError, match=message):
        codec.compress(models.photo(8, 8), settings)


def test_numbers_of_numpy_are_numbers(codec):
    settings = CodecSettings(stages=np.int64(1), gain_step=np.uint8(0), rate_weight=np.float32(0.25))
    assert codec.compress(models.photo(8, 8), settings) == codec.compress(
        models.photo(8, 8), CodecSettings(rate_weight=0.25)
    )


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
        ConfigError, match="an image of 1x100 pixels is too long and thin for contextual; use mode static"
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
