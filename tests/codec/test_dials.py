"""The dials of the codec: stages, bits weighed against error, targets, and wrong settings."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from codec import models
from hybridvq import CodecSettings, ConfigError
from hybridvq.codec import STATIC, TokenCoder, truncate
from hybridvq.codec.choose import Chooser
from hybridvq.codec.targets import Attempt, Target, meet

NAN = float("nan")


def psnr(a, b) -> float:
    return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


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


def test_the_weighed_choice_is_the_exhaustive_one(staged):
    """Every pair of code and level, stage after stage, in float64."""
    from hybridvq.quantizers.base import flatten

    quantizer, weight = staged.tokenizer.quantizer, 0.2
    x = torch.from_numpy(models.photo(16, 16)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        z = staged.tokenizer.encoder(x)
        tokens = Chooser(quantizer, staged.tables, 3, weight)(z)
        r = flatten(quantizer.in_code_space(z)).double().numpy()
    for s in range(3):
        values = quantizer.gain_levels[s].values.double().numpy()
        directions = quantizer.directions.weight.double().numpy()
        shares = staged.tables.of_stages[s].shares.astype(float)
        level_shares = shares.sum(1)
        best = []
        for row, (level, code) in zip(
            r, zip(tokens.gains[0, s].flatten(), tokens.codes[0, s].flatten(), strict=True), strict=True
        ):
            costs = {}
            for q in range(len(values)):
                p = shares[q] / shares[q].sum() * 255 / 256 + 1 / 256 / shares.shape[1]
                bits = -np.log2(level_shares[q] / level_shares.sum()) - np.log2(p)
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
            tokens = Chooser(quantizer, codec.tables, 1, weight)(z)
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
        ({"target_psnr": 30.0, "quality": 50.0}, "give it without quality"),
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
    settings = CodecSettings(stages=np.int64(1), rate_weight=np.float32(0.25))
    assert codec.compress(models.photo(8, 8), settings) == codec.compress(
        models.photo(8, 8), CodecSettings(rate_weight=0.25)
    )
