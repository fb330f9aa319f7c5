"""Images to the codes and coefficients of a hybrid model, their streams, and back; a tile at a time.

image ──► z (D,h,w) ──► codes ──► mean ──► rest = z - mean ──► [rest / step] = r ──► streams       `Latent`
streams ──► codes, r ──► mean + step r ──► image                                  `decode`, `pieces`
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hybridvq import tiles
from hybridvq.codec import coefficients
from hybridvq.codec.coder import TokenCoder
from hybridvq.codec.integers import UNIT_LOG2
from hybridvq.codec.layered import LayeredHeader
from hybridvq.codec.scales import COARSER, ScaleTables, step_of
from hybridvq.codec.tables import Tables
from hybridvq.devices import evaluating
from hybridvq.errors import DataError
from hybridvq.pixels import Pixels
from hybridvq.quantizers import Quantizer
from hybridvq.quantizers.structure import Structure
from hybridvq.ranges import SEED, Range, check_numbers, number
from hybridvq.tokenizer import Tokenizer


@dataclass(frozen=True)
class Draw:
    """How what is missing of a file is drawn: `seed` from 0, and `temperature`, which scales it; 0 is the mean.

    Raises:
        ConfigError: one of them is out of range.
    """

    seed: int = number(0, SEED)
    temperature: float = number(1.0, Range(0, 100, whole=False))

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Latent:
    """An image before its coefficients are rounded.

    Attributes:
        codes: (G, h/4, w/4) int64.
        rest: (D, h, w) float32, z less what the codes let expect.
        tables: of the model.
        rate_weight: of its quantizer, square steps that a bit is worth.
    """

    codes: np.ndarray
    rest: np.ndarray
    tables: Tables
    rate_weight: float

    @property
    def scales(self) -> ScaleTables:
        assert self.tables.scales is not None
        return self.tables.scales

    @cached_property
    def hidden(self) -> np.ndarray:
        return self.scales.hidden(self.codes)

    def code_stream(self, mode: int) -> bytes:
        """The codes, which are the same at any step."""
        return TokenCoder(self.tables, mode).encode_together(self.codes)

    def coefficient_streams(self, byte: int) -> list[bytes]:
        """The coefficients in the step of `byte`."""
        source = Rounding(self.rest, self.scales, byte, self.rate_weight)
        groups = range(self.scales.groups)
        return [coefficients.encode_group(self.scales, self.hidden, byte, g, source) for g in groups]


class Rounding:
    """The coefficients of a latent in the step of `byte`, chosen by error and bits; see `coefficients.thresholds`."""

    def __init__(self, rest: np.ndarray, tables: ScaleTables, byte: int, rate_weight: float) -> None:
        self.rest, self.size, self.coded = rest, (rest.shape[1], rest.shape[2]), int(tables.coded)
        self.step = np.float32(step_of(byte))
        self.limits = coefficients.thresholds(tables, rate_weight)

    def __call__(self, channels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        r = np.empty(classes.shape, np.int16)
        for i, channel in enumerate(channels):
            v = self.rest[channel] / self.step
            r[i] = coefficients.round_to_steps(v, classes[i], self.limits, self.coded)
        return r


def structure_of(quantizer: Quantizer) -> Structure:
    """What predicts coefficients from codes, in a quantizer that has both."""
    structure = getattr(quantizer, "structure", None)
    assert isinstance(structure, Structure)
    return structure


@torch.inference_mode()
def encode(tokenizer: Tokenizer, tables: Tables, image: Pixels, tile_pixels: int = tiles.TILE_PIXELS) -> Latent:
    """The codes of an image of any size, and what they leave of z."""
    structure, tile = structure_of(tokenizer.quantizer), tile_pixels // tokenizer.downsampling
    with evaluating(tokenizer) as device:
        z = encoded(tokenizer, image, tile, device)
        codes = codes_of(structure, z, tile, device)
        for y, x, mean in means(structure, codes, (z.shape[2], z.shape[3]), tile, 0, device):
            z[..., y.start : y.stop, x.start : x.stop] -= mean.cpu()
    return Latent(codes[0].numpy(), z[0].numpy(), tables, tokenizer.quantizer.rate_weight)


def encoded(tokenizer: Tokenizer, image: Pixels, tile: int, device: torch.device) -> Tensor:
    """z (1, D, h, w) of an image, whose sides are extended by reflection to multiples of f."""
    z = torch.empty(1, tokenizer.dim, *tiles.grid_of(tokenizer, *tiles.size_of(image)))
    for y, x, part in tiles.latents(tokenizer, [image], max(1, tile), tiles.reach(tokenizer.encoder), device):
        if not part.isfinite().all():
            raise DataError("the encoder's output holds NaN or infinity, which cannot be rounded; check its weights")
        z[..., y.start : y.stop, x.start : x.stop] = part
    return z


def codes_of(structure: Structure, z: Tensor, tile: int, device: torch.device) -> Tensor:
    """The codes (1, G, h/4, w/4) of z (1, D, h, w), sides rounded up."""
    grid = tuple(-(-side // COARSER) for side in z.shape[2:])
    codes = torch.empty(1, len(structure.codebooks), *grid, dtype=torch.long)
    margin, coarse = tiles.reach(structure.encoder), max(1, tile // COARSER)
    for y in tiles.spans(grid[0], coarse, margin):
        for x in tiles.spans(grid[1], coarse, margin):
            part = z[..., COARSER * y.first : COARSER * y.last, COARSER * x.first : COARSER * x.last].to(device)
            pad = (0, -part.shape[3] % COARSER, 0, -part.shape[2] % COARSER)
            found = structure.assign(structure.encoder(F.pad(part, pad, mode="replicate"))[..., y.kept, x.kept])
            codes[..., y.start : y.stop, x.start : x.stop] = found.cpu()
    return codes


def means(
    structure: Structure, codes: Tensor, size: tuple[int, int], tile: int, margin: int, device: torch.device
) -> Iterator[tuple[tiles.Span, tiles.Span, Tensor]]:
    """The mean of each tile, with its margin: (1, D, ., .) from `first` to `last` of its spans in positions."""
    extra = -(-tiles.reach(structure.decoder) // COARSER)
    for y in tiles.spans(size[0], max(1, tile), margin):
        for x in tiles.spans(size[1], max(1, tile), margin):
            top, left = (max(span.first // COARSER - extra, 0) for span in (y, x))
            bottom, right = (-(-span.last // COARSER) + extra for span in (y, x))
            mean = structure.predict_mean(structure.embed(codes[..., top:bottom, left:right].to(device)))
            rows = slice(y.first - COARSER * top, y.last - COARSER * top)
            columns = slice(x.first - COARSER * left, x.last - COARSER * left)
            yield y, x, mean[..., rows, columns]


@dataclass(frozen=True)
class Layers:
    """What a file holds.

    Attributes:
        codes: (G, h/4, w/4) int64.
        rest: (D, h, w), what is added to the mean: int16 in steps, or float16 where some was drawn; None for nothing.
        unit: what a number in `rest` counts.
    """

    codes: np.ndarray
    rest: np.ndarray | None
    unit: float


def decode(
    header: LayeredHeader, codes: bytes, streams: Sequence[bytes], tables: Tables, draw: Draw | None = None
) -> Layers:
    """The codes and coefficients of the streams that there are; those missing are 0, or drawn.

    Raises:
        CodecError: the streams are seen not to be of these tables.
    """
    scales, step = tables.scales, step_of(header.step)
    assert scales is not None
    found = TokenCoder(tables, header.mode).decode_together(codes, header.codes.grid)
    drawn = draw is not None and len(streams) < scales.groups
    if not streams and not drawn:
        return Layers(found, None, step)
    hidden = scales.hidden(found)
    rest = np.zeros((scales.dim, *header.size), np.float16 if drawn else np.int16)
    for group, stream in enumerate(streams):
        parts = coefficients.decode_group(scales, hidden, header.step, group, header.size, stream)
        for channels, r in parts:
            rest[channels] = r * np.float32(step) if drawn else r
    if draw is not None and drawn:
        random = np.random.default_rng(draw.seed)
        for group in range(len(streams), scales.groups):
            for channels in coefficients.blocks(scales, group):
                log2_scale = scales.log_scales(hidden, channels, header.size) / np.float32(1 << UNIT_LOG2)
                uniform = random.random(log2_scale.shape, np.float32).clip(1e-6, 1 - 1e-6)
                rest[channels] = draw.temperature * np.exp2(log2_scale) * np.log(uniform / (1 - uniform))
    return Layers(found, rest, 1.0 if drawn else step)


@torch.inference_mode()
def pieces(
    tokenizer: Tokenizer, layers: Layers, height: int, width: int, tile_pixels: int = tiles.TILE_PIXELS
) -> Iterator[tuple[int, int, Tensor]]:
    """The image in pieces: the top, the left, and x_hat (1, 3, ., .) in [-1, 1] of each, as `tiles.decode`."""
    f = tokenizer.downsampling
    size, margin = tiles.grid_of(tokenizer, height, width), math.ceil(tiles.reach(tokenizer.decoder) / f)
    with evaluating(tokenizer) as device:
        codes = torch.from_numpy(layers.codes)[None]
        for y, x, mean in means(structure_of(tokenizer.quantizer), codes, size, tile_pixels // f, margin, device):
            z_hat = mean
            if layers.rest is not None:
                part = torch.from_numpy(layers.rest[:, y.first : y.last, x.first : x.last].astype(np.float32))
                z_hat = mean + part[None].to(device) * layers.unit
            x_hat = tokenizer.decoder(z_hat).float()
            top, left, part_of = tiles.shown(y, x, f, height, width)
            yield top, left, x_hat[..., *part_of]
