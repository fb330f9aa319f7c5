"""Metrics against scikit-image, numpy and cases worked by hand."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hybridvq.metrics import (
    codes_used,
    entropy_bits,
    grid_levels,
    grid_values,
    max_loss_spike,
    perplexity,
    psnr_db,
    ssim,
    worst_batches,
)


def round_to_grid(gains, *grid):
    return grid_values(grid_levels(gains, *grid), *grid)


def pair(height=24, width=20, noise=0.3):
    generator = np.random.default_rng(0)
    x = np.cumsum(generator.normal(size=(3, height, width)), axis=2)
    x = x / np.abs(x).max()
    return x, np.clip(x + noise * generator.normal(size=x.shape), -1, 1)


def test_psnr_is_that_of_scikit_image():
    x, x_hat = pair()
    expected = peak_signal_noise_ratio(x, x_hat, data_range=2)
    assert psnr_db(np.mean((x - x_hat) ** 2)) == pytest.approx(expected, rel=1e-12)


def test_psnr_by_hand():
    assert psnr_db(4) == 0
    assert psnr_db(0.04) == pytest.approx(20)
    assert psnr_db(0) == math.inf
    assert math.isnan(psnr_db(math.nan))


@pytest.mark.parametrize("noise", [0.02, 0.3, 1.0])
def test_ssim_is_that_of_scikit_image_on_mirrored_borders(noise):
    """scikit-image leaves 5 pixels at each border out; mirrored outwards by 5, exactly ours remain."""
    x, x_hat = pair(noise=noise)
    positive = [(image + 1) / 2 for image in (x, x_hat)]
    padded = [np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect") for image in positive]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = structural_similarity(*padded, channel_axis=0, **settings)
    ours = ssim(torch.tensor(x_hat)[None], torch.tensor(x)[None])
    assert ours.shape == (1,)
    assert ours.item() == pytest.approx(expected, abs=2e-5)
    unpadded = structural_similarity(*positive, channel_axis=0, **settings)
    assert abs(ours.item() - unpadded) < 0.05


def test_ssim_is_one_for_each_equal_image():
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(ssim(x, x), torch.ones(3))
    mixed = ssim(torch.cat([x[:1], x[1:].flip(0)]), x)
    assert mixed[0] > 0.999
    assert mixed[1:].abs().max() < 0.5


@pytest.mark.parametrize(
    ("counts", "bits", "used"),
    [([1, 1, 1, 1], 2, 4), ([4, 0, 0], 0, 1), ([2, 1, 1, 0], 1.5, 3), ([0, 0], 0, 0), ([9, 1], 0.4689955935892812, 2)],
)
def test_entropy_by_hand(counts, bits, used):
    counts = torch.tensor(counts)
    assert entropy_bits(counts) == pytest.approx(bits, abs=1e-12)
    assert perplexity(counts) == pytest.approx(2**bits)
    assert codes_used(counts) == used


def test_max_loss_spike_against_a_loop():
    losses = np.random.default_rng(0).lognormal(size=500).tolist()
    for window, start in ((100, 200), (7, 30), (50, 10)):
        expected = max(losses[t] / np.median(losses[t - window : t]) for t in range(max(start, window), 500))
        assert max_loss_spike(losses, window, start) == pytest.approx(expected, rel=1e-12)


def test_worst_batches_by_hand():
    losses = [1.0] * 300
    losses[249], losses[219], losses[299] = 3.0, 2.0, 1.5
    assert worst_batches(losses, count=3) == [(250, 3.0), (220, 2.0), (300, 1.5)]
    assert worst_batches(losses[:200]) == []


def test_max_loss_spike_by_hand():
    losses = [1.0] * 300
    losses[10], losses[250] = 100, 7
    assert max_loss_spike(losses) == 7
    assert max_loss_spike(losses[:200]) is None
    assert max_loss_spike(losses[:201]) == 1
    assert max_loss_spike([]) is None


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_rounding_to_a_grid(bits):
    gains = torch.linspace(-3, 3, 10_001)
    rounded = round_to_grid(gains, -1.0, 2.0, bits)
    grid = np.linspace(-1, 2, 2**bits)
    assert len(rounded.unique()) == 2**bits
    np.testing.assert_allclose(rounded.unique().numpy(), grid, atol=1e-6)
    inside = (gains >= -1) & (gains <= 2)
    nearest = np.abs(gains[inside].numpy()[:, None] - grid).min(1)
    np.testing.assert_allclose((rounded - gains)[inside].abs().numpy(), nearest, atol=1e-6)
    assert rounded[0] == -1
    assert rounded[-1] == pytest.approx(2)
    torch.testing.assert_close(round_to_grid(rounded, -1.0, 2.0, bits), rounded)


def test_a_grid_of_no_width():
    assert round_to_grid(torch.tensor([0.0, 5.0]), 1.0, 1.0, 4).tolist() == [1, 1]
