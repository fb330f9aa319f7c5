"""Pure functions of tensors: errors, codebook usage, spikes. MSE is on the [-1, 1] scale everywhere."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PEAK = 2.0  # the range of values in [-1, 1]
SPIKE_WINDOW = 100
SPIKE_START = 200


def psnr_db(mse: float) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1]: 10 log10(4 / mse), in dB; infinite for mse 0."""
    return math.inf if mse == 0 else 10 * math.log10(PEAK**2 / mse)


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity of each image, (B,), for images (B, 3, H, W) in [-1, 1].

    Gaussian window of 11 pixels, sigma 1.5, population covariances (Wang et al. 2004), by torchmetrics: the mean over
    every pixel, with images mirrored at their borders. scikit-image leaves out the 5 pixels at each border instead.
    Computed on [0, 1], as published values are: the luminance term of SSIM changes when images are shifted.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(
        (x_hat.float() + 1) / 2, (x.float() + 1) / 2, data_range=1.0, reduction="none", sigma=1.5, kernel_size=11
    )
    assert isinstance(values, Tensor)
    return values


def entropy_bits(counts: Tensor) -> float:
    """Entropy -sum p log2 p of the empirical distribution p = counts / sum(counts), in bits; 0 for no counts."""
    counts = counts.double()
    if counts.sum() == 0:
        return 0.0
    p = counts[counts > 0] / counts.sum()
    return float(-(p * p.log2()).sum()) + 0.0


def perplexity(counts: Tensor) -> float:
    """2 ** entropy: how many equally frequent codes would be as hard to predict."""
    return 2 ** entropy_bits(counts)


def codes_used(counts: Tensor) -> int:
    """How many codes were chosen at least once."""
    return int((counts > 0).sum())


def loss_spikes(losses: Sequence[float], window: int = SPIKE_WINDOW, start: int = SPIKE_START) -> np.ndarray:
    """The ratio of each batch's loss to the median of the `window` batches before it, from step `start` on.

    Element i is that of step max(start, window) + i, counted from 0; empty when the run is no longer than that.
    """
    values = np.asarray(losses, dtype=np.float64)
    first = max(start, window)
    if len(values) <= first:
        return np.empty(0)
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    return values[first:] / np.median(windows[first - window : len(values) - window], axis=1)


def max_loss_spike(losses: Sequence[float], window: int = SPIKE_WINDOW, start: int = SPIKE_START) -> float | None:
    """The largest of `loss_spikes`; None when the run is too short for any."""
    ratios = loss_spikes(losses, window, start)
    return float(ratios.max()) if len(ratios) else None


def worst_batches(
    losses: Sequence[float], count: int = 4, window: int = SPIKE_WINDOW, start: int = SPIKE_START
) -> list[tuple[int, float]]:
    """The `count` steps (from 1) with the largest of `loss_spikes`, largest first, and those."""
    ratios = loss_spikes(losses, window, start)
    first = max(start, window) + 1
    return [(first + int(i), float(ratios[i])) for i in np.argsort(-ratios)[:count]]


def grid_levels(gains: Tensor, low: float, high: float, bits: int) -> Tensor:
    """The nearest, as int64, of 2**bits evenly spaced values from `low` to `high`, ends included."""
    steps = 2**bits - 1
    if high == low:
        return torch.zeros_like(gains, dtype=torch.long)
    return ((gains - low) * (steps / (high - low))).round().clamp(0, steps).long()


def grid_values(levels: Tensor, low: float, high: float, bits: int) -> Tensor:
    """The values, float32, that `grid_levels` numbers."""
    return levels.float() * ((high - low) / (2**bits - 1)) + low
