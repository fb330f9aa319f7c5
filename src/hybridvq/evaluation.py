"""Measure a tokenizer on held-out images."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridvq import metrics
from hybridvq.errors import ShapeError
from hybridvq.quantizers import Tokens
from hybridvq.quantizers.base import FLOAT_BITS
from hybridvq.tokenizer import Tokenizer

GAIN_BITS = (8, 6, 4)
GAIN_QUANTILES = (0.002, 0.998)
SMALLEST_SIDE = 6  # pixels: SSIM mirrors 5 at each border


class Batches(Protocol):
    """Batches of images (B, 3, H, W) in [-1, 1] by number: a list of tensors, or `hybridvq.data.EvalBatches`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class GainRange:
    """Where a model's coefficients lie on training images: the ends of the grid they are rounded to."""

    low: float
    high: float


class Measurement:
    """Running sums over batches; `result()` turns them into the numbers that tables show."""

    def __init__(self, tokenizer: Tokenizer, gain_range: GainRange | None = None) -> None:
        self.tokenizer, self.gain_range = tokenizer, gain_range
        self.images = self.positions = self.values = 0
        self.squared_error = self.quantization_error = self.quantization_loss = self.ssim = self.raw_bits = 0.0
        size, levels = tokenizer.quantizer.codebook_size, getattr(tokenizer.quantizer, "levels", None)
        self.counts = torch.zeros(size, dtype=torch.long) if size else None
        self.level_counts = torch.zeros(levels, dtype=torch.long) if levels else None
        self.gains: list[Tensor] = []
        self.rounded = dict.fromkeys(GAIN_BITS, 0.0) if gain_range else {}

    def add(self, x: Tensor) -> Tensor:
        """Measure one batch (B, 3, H, W) and return its reconstruction from tokens alone.

        Raises:
            ShapeError: H or W is too small to measure.
        """
        if min(x.shape[2:]) < SMALLEST_SIDE:
            raise ShapeError(
                f"images of {x.shape[2]}x{x.shape[3]} pixels are too small to measure; choose a size of at least "
                f"{SMALLEST_SIDE}"
            )
        z = self.tokenizer.encoder(x)
        quantized = self.tokenizer.quantizer(z)
        tokens = quantized.tokens
        x_hat = self.tokenizer.decode(tokens).float()
        positions = z.shape[0] * z.shape[2] * z.shape[3]
        self.images += len(x)
        self.positions += positions
        self.values += x.numel()
        self.squared_error += squared_error(x_hat, x)
        self.quantization_error += float(quantized.error) * positions
        self.quantization_loss += sum(float(v) for v in quantized.losses.values()) * len(x)
        self.ssim += float(metrics.ssim(x_hat, x).double().sum())
        self.raw_bits += raw_bits(self.tokenizer, tokens) * positions
        count(self.counts, tokens.codes)
        if tokens.gains is not None and tokens.gains.is_floating_point():
            self.gains.append(read_gains(tokens).cpu())
            self._add_rounded(x, tokens)
        else:
            count(self.level_counts, tokens.gains)
        return x_hat

    def _add_rounded(self, x: Tensor, tokens: Tokens) -> None:
        if self.gain_range is None or tokens.gains is None:
            return
        for bits in self.rounded:
            gains = metrics.round_to_grid(tokens.gains, self.gain_range.low, self.gain_range.high, bits)
            x_hat = self.tokenizer.decode(Tokens(tokens.codes, gains, tokens.vectors, tokens.passed))
            self.rounded[bits] += squared_error(x_hat.float(), x)

    def result(self) -> dict[str, Any]:
        """The measured numbers, by the names that result.json uses."""
        mse = self.squared_error / self.values
        bits = self.raw_bits / self.positions
        saved = sum(saved_bits(counts) for counts in (self.counts, self.level_counts)) / self.positions
        per_pixel = 1 / self.tokenizer.downsampling**2
        return {
            "test_mse": mse,
            "test_psnr_db": metrics.psnr_db(mse),
            "test_ssim": self.ssim / self.images,
            "test_quantization_mse": self.quantization_error / self.positions,
            "test_quantization_loss": self.quantization_loss / self.images,
            "codebook_size": None if self.counts is None else len(self.counts),
            "codes_used": None if self.counts is None else metrics.codes_used(self.counts),
            "code_entropy_bits": None if self.counts is None else metrics.entropy_bits(self.counts),
            "perplexity": None if self.counts is None else metrics.perplexity(self.counts),
            "bits_per_position": bits,
            "rate_bpp": bits * per_pixel,
            "entropy_rate_bpp": (bits - saved) * per_pixel,
            "usage": None if self.counts is None else self.counts.tolist(),
            "gains": self._gain_result(bits),
        }

    def _gain_result(self, bits_per_position: float) -> dict[str, Any] | None:
        gains = torch.cat(self.gains) if self.gains else torch.empty(0)
        if not len(gains):
            return None
        per_position = len(gains) / self.positions
        rounded = [
            {
                "bits": bits,
                "test_mse": error / self.values,
                "bits_per_position": bits_per_position - (FLOAT_BITS - bits) * per_position,
            }
            for bits, error in self.rounded.items()
        ]
        deviation, mean = torch.std_mean(gains.double())
        return {
            "mean": mean.item(),
            "std": deviation.item(),
            "min": gains.min().item(),
            "max": gains.max().item(),
            "rounded": rounded,
        }


def squared_error(a: Tensor, b: Tensor) -> float:
    """Sum of squared differences."""
    return float(F.mse_loss(a, b).double()) * a.numel()


def count(counts: Tensor | None, symbols: Tensor | None) -> None:
    """Add how often each symbol occurs to `counts`, if there are any."""
    if counts is not None and symbols is not None:
        counts += torch.bincount(symbols.flatten().cpu(), minlength=len(counts))


def saved_bits(counts: Tensor | None) -> float:
    """How many bits an ideal entropy coder saves on symbols that occur so often, against log2 of their number each."""
    if counts is None:
        return 0.0
    return float(counts.sum()) * (math.log2(len(counts)) - metrics.entropy_bits(counts))


def read_gains(tokens: Tokens) -> Tensor:
    """The float coefficients that decoding reads, (M,) float32; none where the tokens carry none."""
    if tokens.gains is None or not tokens.gains.is_floating_point():
        return torch.empty(0)
    return tokens.gains.flatten() if tokens.passed is None else tokens.gains[tokens.passed]


@torch.inference_mode()
def gain_range(tokenizer: Tokenizer, batches: Batches) -> GainRange | None:
    """The 0.2 and 99.8 percentiles of the coefficients on these (training) images; None for a model without any."""
    with evaluating(tokenizer) as device:
        gains = torch.cat([read_gains(tokenizer.encode(batches[i].to(device))).cpu() for i in range(len(batches))])
    if not len(gains):
        return None
    ordered = gains.sort().values
    low, high = (ordered[round(q * (len(ordered) - 1))].item() for q in GAIN_QUANTILES)
    return GainRange(low, high)


@torch.inference_mode()
def evaluate(tokenizer: Tokenizer, batches: Batches, gain_range: GainRange | None = None) -> dict[str, Any]:
    """Every number of a table row, on batches (B, 3, H, W) in [-1, 1], in float32 and from tokens alone.

    Bits: log2 K a code, log2 L a gain on L levels, 32 a float coefficient, 32 D a passed-through vector;
    `entropy_rate_bpp` counts codes and levels at the entropy of those used. With `gain_range`, also the error once
    coefficients are rounded to few bits.
    """
    with evaluating(tokenizer) as device:
        measurement = Measurement(tokenizer, gain_range)
        for i in range(len(batches)):
            measurement.add(batches[i].to(device))
    return measurement.result()


@torch.inference_mode()
def reconstruct(tokenizer: Tokenizer, x: Tensor) -> tuple[Tensor, float]:
    """x (B, 3, H, W) through tokens and back in evaluation mode, float32, and the raw bits of all its tokens."""
    with evaluating(tokenizer) as device:
        tokens = tokenizer.encode(x.to(device))
        positions = len(x) * x.shape[2] * x.shape[3] / tokenizer.downsampling**2
        return tokenizer.decode(tokens).float(), raw_bits(tokenizer, tokens) * positions


def raw_bits(tokenizer: Tokenizer, tokens: Tokens) -> float:
    """Bits a position before entropy coding: log2 K for each code, log2 L for each gain level, 32 for each float."""
    size, levels = tokenizer.quantizer.codebook_size, getattr(tokenizer.quantizer, "levels", None)
    bits = tokens.float_bits()
    if size and tokens.codes is not None:
        bits += tokens.codes.shape[1] * math.log2(size)
    if levels and tokens.gains is not None:
        bits += tokens.gains.shape[1] * math.log2(levels)
    return bits


@contextmanager
def evaluating(tokenizer: Tokenizer) -> Iterator[torch.device]:
    """Evaluation mode while inside, whatever it was before after; gives the tokenizer's device."""
    was_training = tokenizer.training
    tokenizer.eval()
    try:
        yield next(tokenizer.parameters()).device
    finally:
        tokenizer.train(was_training)


def to_pixels(x: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu()


def default_device() -> torch.device:
    """The first of CUDA, Apple's Metal and the CPU that this machine has."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
