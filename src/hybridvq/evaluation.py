"""Measure a tokenizer on held-out images."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridvq import metrics
from hybridvq.data import EvalBatches, open_images
from hybridvq.devices import Device, evaluating
from hybridvq.errors import ShapeError
from hybridvq.quantizers import Quantized, Tokens
from hybridvq.quantizers.tokens import FLOAT_BITS
from hybridvq.settings import DataSettings
from hybridvq.tokenizer import Tokenizer, load_tokenizer

BATCH = 64
GAIN_BITS = (8, 6, 4, 3, 2, 1, 0)  # 0: every coefficient is 1, and the codes alone are left
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


class SymbolCounts:
    """How often each pair (code, gain level) occurs, stage by stage, for the entropy of what an ideal coder is given.

    Levels are coded given their code: H(k, l) = H(k) + H(l | k).
    """

    def __init__(self, codebook_size: int, levels: int = 1, stages: int = 1) -> None:
        self.shape = (stages, codebook_size, levels)
        self.counts = torch.zeros(stages, codebook_size * levels, dtype=torch.long)

    def add(self, codes: Tensor, levels: Tensor | None = None) -> None:
        """Count the symbols of one batch, codes and levels (B, S, h, w)."""
        symbols = codes * self.shape[2] if levels is None else codes * self.shape[2] + levels
        for stage, counts in enumerate(self.counts):
            counts += torch.bincount(symbols[:, stage].flatten().cpu(), minlength=len(counts))

    def entropy_bits(self) -> float:
        """Bits per position: the joint entropy of code and level, summed over stages."""
        return sum(metrics.entropy_bits(counts) for counts in self.counts)

    def codes(self) -> Tensor:
        """(S, K): how often each code occurs."""
        return self.counts.view(self.shape).sum(2)


class Measurement:
    """Running sums over batches; `result()` turns them into the numbers that tables show."""

    def __init__(self, tokenizer: Tokenizer, gain_range: GainRange | None = None, step: float | None = None) -> None:
        self.tokenizer, self.gain_range, self.step = tokenizer, gain_range, step
        self.images = self.positions = self.values = 0
        self.squared_error = self.quantization_error = self.quantization_loss = self.ssim = 0.0
        self.raw_bits = self.float_bits = 0.0
        size, levels, stages = (getattr(tokenizer.quantizer, key) for key in ("codebook_size", "levels", "stages"))
        self.symbols = SymbolCounts(size, levels or 1, stages) if size else None
        self.gains: list[Tensor] = []
        self.rounded = {bits: RoundedGains(bits, size, stages) for bits in GAIN_BITS} if gain_range and size else {}

    def add(self, x: Tensor) -> Tensor:
        """Measure one batch (B, 3, H, W) and return its reconstruction from tokens alone.

        Raises:
            ShapeError: H or W is too small to measure.
        """
        if min(x.shape[2:]) < SMALLEST_SIDE:
            raise ShapeError(
                f"images of {x.shape[3]}x{x.shape[2]} pixels are too small to measure; choose a size of at least "
                f"{SMALLEST_SIDE}"
            )
        z = self.tokenizer.encoder(x)
        quantized = self.tokenizer.quantizer(z, self.step)
        tokens = quantized.tokens
        assert quantized.error is not None
        x_hat = self.tokenizer.decode(tokens).float()
        positions = z.shape[0] * z.shape[2] * z.shape[3]
        self.images += len(x)
        self.positions += positions
        self.values += x.numel()
        self.squared_error += squared_error(x_hat, x)
        self.quantization_error += float(quantized.error) * positions
        self.quantization_loss += sum(float(v) for v in quantized.losses.values()) * len(x)
        self.ssim += float(metrics.ssim(x_hat, x).double().sum())
        self.raw_bits += bits_of(self.tokenizer, quantized, positions)
        self.float_bits += tokens.float_bits() * positions
        if self.symbols is not None and tokens.codes is not None:
            self.symbols.add(tokens.codes, tokens.gains if self.tokenizer.quantizer.levels else None)
        self.gains.append(read_gains(tokens).cpu())
        for rounded in self.rounded.values():
            assert self.gain_range is not None
            rounded.add(self.tokenizer, x, tokens, self.gain_range)
        return x_hat

    def result(self) -> dict[str, Any]:
        """The measured numbers, by the names that result.json uses."""
        mse = self.squared_error / self.values
        raw, floats = self.raw_bits / self.positions, self.float_bits / self.positions
        entropy = floats + (self.symbols.entropy_bits() if self.symbols else 0.0)
        if self.tokenizer.quantizer.counts_bits:
            entropy = raw
        per_pixel = 1 / self.tokenizer.downsampling**2
        return {
            "test_mse": mse,
            "test_psnr_db": metrics.psnr_db(mse),
            "test_ssim": self.ssim / self.images,
            "test_quantization_mse": self.quantization_error / self.positions,
            "test_quantization_loss": self.quantization_loss / self.images,
            **code_usage(self.symbols.codes() if self.symbols else None),
            "bits_per_position": raw,
            "entropy_bits_per_position": entropy,
            "rate_bpp": raw * per_pixel,
            "entropy_rate_bpp": entropy * per_pixel,
            "gains": self._gain_result(raw),
        }

    def _gain_result(self, raw: float) -> dict[str, Any] | None:
        gains = torch.cat(self.gains) if self.gains else torch.empty(0)
        if not len(gains):
            return None
        deviation, mean = torch.std_mean(gains.double())
        share = len(gains) / self.positions
        return {
            "mean": mean.item(),
            "std": deviation.item(),
            "min": gains.min().item(),
            "max": gains.max().item(),
            "rounded": [
                {
                    "bits": bits,
                    "test_mse": rounded.squared_error / self.values,
                    "bits_per_position": raw - (FLOAT_BITS - bits) * share,
                    "entropy_bits_per_position": rounded.symbols.entropy_bits(),
                }
                for bits, rounded in self.rounded.items()
            ],
        }


class RoundedGains:
    """A model's error and entropy once its float coefficients are rounded to 2**bits values; to 1 where that is one."""

    def __init__(self, bits: int, codebook_size: int, stages: int) -> None:
        self.bits, self.squared_error = bits, 0.0
        self.symbols = SymbolCounts(codebook_size, 2**bits, stages)

    def add(self, tokenizer: Tokenizer, x: Tensor, tokens: Tokens, bounds: GainRange) -> None:
        assert tokens.codes is not None
        assert tokens.gains is not None
        if self.bits:
            levels = metrics.grid_levels(tokens.gains, bounds.low, bounds.high, self.bits)
            gains = metrics.grid_values(levels, bounds.low, bounds.high, self.bits)
        else:
            levels, gains = torch.zeros_like(tokens.gains, dtype=torch.long), torch.ones_like(tokens.gains)
        x_hat = tokenizer.decode(Tokens(tokens.codes, gains, tokens.vectors, tokens.passed))
        self.squared_error += squared_error(x_hat.float(), x)
        self.symbols.add(tokens.codes, levels if tokens.passed is None else levels * tokens.passed)


def code_usage(counts: Tensor | None) -> dict[str, Any]:
    """What the counts (S, K) say: codes used in any stage; entropy and perplexity, averaged over stages."""
    if counts is None:
        return dict.fromkeys(("codebook_size", "codes_used", "code_entropy_bits", "perplexity", "usage"))
    return {
        "codebook_size": counts.shape[1],
        "codes_used": metrics.codes_used(counts.sum(0)),
        "code_entropy_bits": sum(map(metrics.entropy_bits, counts)) / len(counts),
        "perplexity": sum(map(metrics.perplexity, counts)) / len(counts),
        "usage": counts.sum(0).tolist(),
    }


def squared_error(a: Tensor, b: Tensor) -> float:
    """Sum of squared differences."""
    return float(F.mse_loss(a, b).double()) * a.numel()


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
def evaluate(
    tokenizer: Tokenizer | str | Path,
    batches: Batches | str | Path = "photos",
    gain_range: GainRange | None = None,
    step: float | None = None,
    *,
    size: int | None = None,
    limit: int | None = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Every number of a table row, on batches (B, 3, H, W) in [-1, 1], in float32 and from tokens alone.

    A tokenizer that is only named is loaded on the `device`. For `batches`, what `hybridvq train --data` takes stands
    for its held-out images, all or `limit` of them, at the `size` of the training if no other is given.

    Bits: log2 K a code, log2 L a gain on L levels, 32 a float coefficient, 32 D a passed-through vector;
    the entropy rates count a code and its level at their joint entropy. With `gain_range`, also the error once
    coefficients are rounded to few bits, and once all of them are 1, which takes none. A hybrid quantizer counts its
    bits itself, at its own step or at `step`; both rates are then those of an ideal coder that knows the model.

    Raises:
        ConfigError: a step is given, and the quantizer has none.
        ShapeError: the images are too small to measure.
        ModelError, DataError: the model or the images cannot be read.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(tokenizer, device=device)
    if isinstance(batches, str | Path):
        data = DataSettings.of(batches, size or tokenizer.size)
        tokenizer.check_size(data.size)
        batches = EvalBatches(open_images(data.data, "test", size=data.size, limit=limit), BATCH)
    with evaluating(tokenizer) as place:
        measurement = Measurement(tokenizer, gain_range, step)
        for i in range(len(batches)):
            measurement.add(batches[i].to(place))
    return measurement.result()


@torch.inference_mode()
def reconstruct(tokenizer: Tokenizer, x: Tensor, step: float | None = None) -> tuple[Tensor, float]:
    """x (B, 3, H, W) through tokens and back in evaluation mode, float32, and the raw bits of all its tokens."""
    with evaluating(tokenizer) as device:
        quantized = tokenizer.quantize(x.to(device), step)
        positions = len(x) * x.shape[2] * x.shape[3] // tokenizer.downsampling**2
        return tokenizer.decode(quantized.tokens).float(), bits_of(tokenizer, quantized, positions)


def bits_of(tokenizer: Tokenizer, quantized: Quantized, positions: int) -> float:
    """Bits of all tokens: those that the quantizer counts itself, or the raw bits of so many positions."""
    if quantized.rate is not None:
        return float(quantized.rate.bits.double().sum())
    return raw_bits(tokenizer, quantized.tokens) * positions


def raw_bits(tokenizer: Tokenizer, tokens: Tokens) -> float:
    """Bits per position before entropy coding: log2 K for each code, log2 L for each gain level, 32 for each float."""
    size, levels = tokenizer.quantizer.codebook_size, tokenizer.quantizer.levels
    bits = tokens.float_bits()
    if size and tokens.codes is not None:
        bits += tokens.codes.shape[1] * math.log2(size)
    if levels and tokens.gains is not None:
        bits += tokens.gains.shape[1] * math.log2(levels)
    return bits
