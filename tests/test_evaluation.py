"""Rates by hand, errors against scikit-image, percentiles against numpy."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

import tiny
from hybridvq import ShapeError, evaluate
from hybridvq.devices import evaluating
from hybridvq.evaluation import (
    GainRange,
    SymbolCounts,
    code_usage,
    gain_range,
    read_gains,
    reconstruct,
)
from hybridvq.metrics import grid_levels, grid_values
from hybridvq.pixels import to_pixels
from hybridvq.quantizers import Tokens
from test_tokenizer import images, tokenizer

K = tiny.CODES["codebook_size"]
BATCH = images(8, 16)


def round_to_grid(gains, *grid):
    return grid_values(grid_levels(gains, *grid), *grid)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("vector", math.log2(K)),
        ("vector-ema", math.log2(K)),
        ("projected", math.log2(K) + 32),
        ("gain-shape", math.log2(120) + math.log2(4)),
        ("gaussian", 32 * 8),
        ("identity", 32 * 8),
    ],
)
def test_bits_per_position(name, bits):
    result = evaluate(tokenizer(name), [BATCH])
    assert result["bits_per_position"] == pytest.approx(bits)
    assert result["rate_bpp"] == pytest.approx(bits / 16)


@pytest.mark.parametrize(("name", "floats"), [("frequency", 8), ("frequency-projected", 1)])
def test_bits_of_frequency_latents_follow_the_share_that_passes(name, floats):
    made = tokenizer(name, warmup_steps=0)
    share = made.encode(BATCH).passed.double().mean().item()
    assert 0 < share < 1
    result = evaluate(made, [BATCH[:5], BATCH[5:]])
    assert result["bits_per_position"] == pytest.approx(math.log2(K) + share * 32 * floats)


def test_rates_follow_the_downsampling():
    result = evaluate(tokenizer(downsampling=8), [images(2, 16)])
    assert result["rate_bpp"] == pytest.approx(math.log2(K) / 64)


@pytest.mark.parametrize("name", ["vector", "projected", "gain-shape", "frequency"])
def test_entropy_of_the_codes(name):
    made = tokenizer(name, **({"warmup_steps": 0} if name == "frequency" else {}))
    result = evaluate(made, [BATCH[:3], BATCH[3:]])
    tokens = made.encode(BATCH)
    size = made.quantizer.codebook_size
    counts = np.bincount(tokens.codes.flatten().numpy(), minlength=size)
    p = counts[counts > 0] / counts.sum()
    entropy = -np.sum(p * np.log2(p))
    assert result["usage"] == counts.tolist()
    assert result["codes_used"] == (counts > 0).sum() > 1
    assert result["code_entropy_bits"] == pytest.approx(entropy)
    assert result["perplexity"] == pytest.approx(2**entropy)
    bits = entropy + tokens.float_bits()
    if name == "gain-shape":
        q = np.unique(tokens.gains.numpy(), return_counts=True)[1] / tokens.gains.numel()
        bits -= np.sum(q * np.log2(q))
    assert result["entropy_rate_bpp"] == pytest.approx(bits / 16)


@torch.no_grad()
def test_errors_are_those_of_scikit_image():
    made = tokenizer()
    x, x_hat = BATCH.double().numpy(), made.decode(made.encode(BATCH)).double().numpy()
    result = evaluate(made, [BATCH])
    assert result["test_mse"] == pytest.approx(mean_squared_error(x, x_hat), rel=1e-5)
    assert result["test_psnr_db"] == pytest.approx(peak_signal_noise_ratio(x, x_hat, data_range=2), rel=1e-5)
    quantized = made(BATCH).quantized
    z = made.encoder(BATCH)
    assert result["test_quantization_mse"] == pytest.approx((quantized.z_hat - z).double().square().mean().item(), 1e-5)
    assert result["test_quantization_loss"] == pytest.approx(sum(map(float, quantized.losses.values())), rel=1e-5)


@pytest.mark.parametrize("name", tiny.MODELS | tiny.COUNTING)
def test_batches_of_any_size_give_the_same_numbers(name):
    """To the rounding of float32: a convolution may sum in another order for another batch."""
    made = tokenizer(name)
    bounds = gain_range(made, [BATCH])
    whole = evaluate(made, [BATCH], bounds)
    parts = evaluate(made, [BATCH[:1], BATCH[1:4], BATCH[4:]], bounds)
    gains, same = whole.pop("gains"), parts.pop("gains")
    assert parts.pop("usage") == whole.pop("usage")
    numbers = {key: value for key, value in whole.items() if value is not None}
    assert {key: value for key, value in parts.items() if value is not None} == pytest.approx(numbers, rel=1e-4)
    assert (gains is None) == (same is None) == (bounds is None)
    if gains:
        assert [entry["bits"] for entry in gains["rounded"]] == [8, 6, 4, 3, 2, 1, 0]
        for ours, theirs in zip(gains.pop("rounded"), same.pop("rounded"), strict=True):
            assert theirs == pytest.approx(ours, rel=1e-3)  # a coefficient between two levels may take either
        assert same == pytest.approx(gains, rel=1e-4)


def test_evaluation_decodes_tokens_alone(monkeypatch):
    """Whatever the quantizer's z_hat is, only what the tokens say reaches the decoder."""
    made = tokenizer()
    monkeypatch.setattr(type(made.quantizer), "read", lambda self, tokens: torch.zeros(len(tokens.codes), 8, 4, 4))
    blank = made.decoder(torch.zeros(8, 8, 4, 4))
    expected = (blank - BATCH).double().square().mean().item()
    assert evaluate(made, [BATCH])["test_mse"] == pytest.approx(expected, rel=1e-5)


def test_evaluating_changes_nothing():
    made = tokenizer().train()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    evaluate(made, [BATCH])
    reconstruct(made, BATCH)
    assert made.training
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_every_part_keeps_its_mode():
    """Frozen batch normalization stays frozen, also when something goes wrong inside."""
    made = tokenizer().train()
    frozen = [part for part in made.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert frozen
    for part in frozen:
        part.eval()
    modes = [part.training for part in made.modules()]
    evaluate(made, [BATCH])
    reconstruct(made, BATCH)
    with pytest.raises(ShapeError):
        evaluate(made, [images(2, 4)])
    assert [part.training for part in made.modules()] == modes
    with evaluating(made):
        assert not any(part.training for part in made.modules())


def test_codes_used_are_those_of_any_stage():
    usage = code_usage(torch.tensor([[3, 1, 0, 0], [0, 0, 4, 0]]))
    assert (usage["codebook_size"], usage["codes_used"], usage["usage"]) == (4, 3, [3, 1, 4, 0])
    assert usage["code_entropy_bits"] == pytest.approx((2 - 0.75 * math.log2(3)) / 2)
    assert usage["perplexity"] == pytest.approx((4 / 27**0.25 + 1) / 2)


@torch.no_grad()
def test_gain_range_are_percentiles():
    made = tokenizer("projected")
    gains = made.encode(BATCH).gains.flatten().numpy()
    bounds = gain_range(made, [BATCH[:3], BATCH[3:]])
    low, high = np.quantile(gains, [0.002, 0.998], method="nearest")
    assert (bounds.low, bounds.high) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))
    assert gain_range(tokenizer("vector"), [BATCH]) is None
    assert gain_range(tokenizer("gain-shape"), [BATCH]) is None


@torch.no_grad()
def test_rounded_coefficients():
    made = tokenizer("projected")
    bounds = GainRange(0.5, 1.5)
    result = evaluate(made, [BATCH], bounds)["gains"]
    tokens = made.encode(BATCH)
    assert result["mean"] == pytest.approx(tokens.gains.mean().item(), rel=1e-5)
    assert result["std"] == pytest.approx(tokens.gains.std().item(), rel=1e-4)
    assert (result["min"], result["max"]) == (tokens.gains.min().item(), tokens.gains.max().item())
    for entry in result["rounded"]:
        bits = entry["bits"]
        gains = round_to_grid(tokens.gains, 0.5, 1.5, bits) if bits else torch.ones_like(tokens.gains)
        rounded = Tokens(codes=tokens.codes, gains=gains)
        expected = (made.decode(rounded) - BATCH).double().square().mean().item()
        assert entry["test_mse"] == pytest.approx(expected, rel=1e-5)
        assert entry["bits_per_position"] == pytest.approx(math.log2(K) + entry["bits"])


def test_only_the_coefficients_that_are_read_are_rounded():
    made = tokenizer("frequency-projected", warmup_steps=0)
    tokens = made.encode(BATCH)
    share = tokens.passed.double().mean().item()
    assert len(read_gains(tokens)) == tokens.passed.sum()
    for entry in evaluate(made, [BATCH], gain_range(made, [BATCH]))["gains"]["rounded"]:
        assert entry["bits_per_position"] == pytest.approx(math.log2(K) + share * entry["bits"])


def test_reconstruct_counts_raw_bits():
    x_hat, bits = reconstruct(tokenizer("projected"), BATCH[:2])
    assert x_hat.shape == BATCH[:2].shape
    assert bits == pytest.approx(2 * 16 * (6 + 32))


def test_images_too_small_for_ssim():
    with pytest.raises(ShapeError, match="images of 4x4 pixels are too small to measure"):
        evaluate(tokenizer(), [images(2, 4)])
    assert math.isfinite(evaluate(tokenizer(), [images(2, 8)])["test_ssim"])


def test_pixels():
    x = torch.tensor([-1.2, -1.0, 0.0, 1 / 255, 1.0, 1.5])[None, None, None].expand(1, 3, 1, 6)
    assert to_pixels(x)[0, 0, :, 0].tolist() == [0, 0, 128, 128, 255, 255]
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(
        to_pixels((values.float() / 127.5 - 1)[None, None, None].expand(1, 3, 1, 256))[0, 0, :, 0], values
    )


def test_entropy_is_that_of_codes_and_of_gains_given_codes():
    """H(k) + sum_k p(k) H(l | k), stage by stage, in numpy."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (2, 2, 8, 8)) // generator.integers(1, 3, (2, 2, 8, 8))
    levels = np.minimum(codes + generator.integers(0, 2, codes.shape), 3)
    symbols = SymbolCounts(4, levels=4, stages=2)
    for half in (slice(0, 1), slice(1, 2)):
        symbols.add(torch.tensor(codes[half]), torch.tensor(levels[half]))

    def entropy(values):
        p = np.unique(values, return_counts=True)[1] / len(values)
        return -(p * np.log2(p)).sum()

    expected = 0.0
    for stage in range(2):
        k, level = codes[:, stage].ravel(), levels[:, stage].ravel()
        expected += entropy(k) + sum(np.mean(k == i) * entropy(level[k == i]) for i in np.unique(k))
    assert symbols.entropy_bits() == pytest.approx(expected, rel=1e-12)
    assert symbols.codes().tolist() == [np.bincount(codes[:, s].ravel(), minlength=4).tolist() for s in range(2)]
