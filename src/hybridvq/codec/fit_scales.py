"""The tables of coefficients, fitted to what the coefficients of training images cost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.codec.coefficients import round_to_steps, thresholds
from hybridvq.codec.fit import STEPS, UNIT, Track, descend, rectify, rms, to_int16, untracked
from hybridvq.codec.hybrid import structure_of
from hybridvq.codec.integers import SCALE, WEIGHT_LOG2
from hybridvq.codec.scales import (
    CLASS_LOG2,
    CLASSES,
    COARSER,
    ESCAPE,
    LOWEST,
    MOST,
    SYMBOLS,
    ScaleTables,
    step_byte,
    step_of,
)
from hybridvq.data import EvalBatches
from hybridvq.devices import evaluating
from hybridvq.quantizers import Quantizer
from hybridvq.quantizers.logistic import logistic_bits
from hybridvq.quantizers.structure import Structure
from hybridvq.tokenizer import Tokenizer

INNER, WIDTH = 64, 96  # A and H
POSITIONS = 256  # coarse ones of a training step, about
LEARNING_RATE = 3e-3
LOG2_STEPS = (-2.25, 2.0)  # of the steps that the tables serve best
LADDER = 6  # steps between at which coefficients are counted
PRIOR = 500.0  # counts that a logistic distribution is worth in each class
SILENT = 0.998  # a class with more zeros than this is not coded
GROUPS = 4

Sample = tuple[Tensor, Tensor]
"""codes (B, G, h, w) int64 of some images, and what is left of z once their mean is taken away, (B, D, <=4h, <=4w)."""


class ScaleNetwork(nn.Module):
    """The network that `ScaleTables` describes, before it is rounded."""

    def __init__(self, vectors: Sequence[Tensor], log2_scales: Tensor, inner: int, width: int) -> None:
        """`vectors`: (K, d) of each group; `log2_scales`: (D,), where the scales start."""
        super().__init__()
        dim = len(log2_scales)
        scaled = torch.stack([v / rms(v) for v in vectors])  # (G, K, d)
        mix = torch.randn(len(vectors), scaled.shape[2], inner) / math.sqrt(len(vectors) * scaled.shape[2])
        self.embeddings = nn.Parameter(scaled @ mix)
        self.embedding_bias = nn.Parameter(torch.zeros(inner))
        self.near = nn.Conv2d(inner, width, 3, padding=1)
        self.out = nn.Conv2d(width, COARSER**2 * dim, 1)
        nn.init.zeros_(self.out.weight)
        self.out.bias = nn.Parameter(log2_scales.repeat(COARSER**2))

    def forward(self, codes: Tensor) -> Tensor:
        """log2 s, (B, D, 4h, 4w), of codes (B, G, h, w)."""
        summed = torch.stack([e[c] for e, c in zip(self.embeddings, codes.unbind(1), strict=True)]).sum(0)
        a = rectify(summed + self.embedding_bias).movedim(-1, 1)
        out = self.out(rectify(self.near(a)))
        cells = out.unflatten(1, (COARSER, COARSER, -1)).permute(0, 3, 4, 1, 5, 2)  # (B, D, h, 4, w, 4)
        return cells.flatten(4, 5).flatten(2, 3)


@torch.inference_mode()
def samples_of(tokenizer: Tokenizer, batches: EvalBatches, track: Track = untracked) -> Iterator[Sample]:
    """What a hybrid model makes of images, half of the precision kept."""
    with evaluating(tokenizer) as device:
        for number in track(range(len(batches)), "encoding images"):
            z = tokenizer.encoder(batches[number].to(device))
            guess = structure_of(tokenizer.quantizer)(z, False)
            yield guess.codes.cpu(), (z - guess.mean).half().cpu()


def fit_scales(
    samples: Sequence[Sample],
    quantizer: Quantizer,
    *,
    steps: int = STEPS,
    seed: int = 0,
    width: int = WIDTH,
    track: Track = untracked,
) -> ScaleTables:
    """Tables under which coefficients such as these take few bits, at any step.

    Args:
        samples: codes and rests of training images, those of one sample of one size.
        quantizer: the hybrid one that they are of.
        steps: of gradient descent.
        seed: of the first weights and of what is drawn.
        width: H.
        track: goes through the steps, and may show them.
    """
    structure, rests = structure_of(quantizer), [rest for _, rest in samples]
    vectors = [structure.vectors(group).cpu() for group in range(len(structure.codebooks))]
    log2_scales = torch.stack([r.float().abs().mean((0, 2, 3)) for r in rests]).mean(0).clamp(min=2.0**-6).log2() - 0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ScaleNetwork(vectors, log2_scales, INNER, width)
    draw = torch.Generator().manual_seed(seed)
    shown = track(range(steps), "tables of coefficients")
    descend(network, lambda: cost(network, structure, samples, draw), steps, LEARNING_RATE, shown)
    return calibrate(rounded(network), samples, quantizer.rate_weight)


def cost(network: ScaleNetwork, structure: Structure, samples: Sequence[Sample], draw: torch.Generator) -> Tensor:
    """Bits per coefficient of some of the samples at a step that is drawn for each, and how far the log scales are
    from those of the structure network, as a mean square: it has seen more images than there are samples.
    """
    codes, rest = samples[int(torch.randint(len(samples), (), generator=draw))]
    count = max(1, POSITIONS // codes[0, 0].numel())
    rows = torch.randint(len(codes), (min(count, len(codes)),), generator=draw)
    codes, rest = codes[rows], rest[rows].float()
    step = torch.empty(len(rows), 1, 1, 1).uniform_(*LOG2_STEPS, generator=draw).exp2()
    log_scale = network(codes)[..., : rest.shape[2], : rest.shape[3]] * math.log(2)
    with torch.no_grad():
        taught = structure.predict(structure.embed(codes.to(structure.vectors(0).device)))[1].cpu()
        taught = taught[..., : rest.shape[2], : rest.shape[3]]
    noise = torch.rand(rest.shape, generator=draw) - 0.5
    bits = logistic_bits(rest + noise * step, step, torch.zeros(()), log_scale).mean()
    return bits + F.mse_loss(log_scale, taught)


def rounded(network: ScaleNetwork) -> ScaleTables:
    """The tables of a trained network, with logistic counts and all channels in one stream."""
    weight = 1 << WEIGHT_LOG2
    with torch.no_grad():
        near, out = network.near.weight.permute(2, 3, 1, 0), network.out.weight[:, :, 0, 0].T
        assert network.near.bias is not None
        assert network.out.bias is not None
        dim = len(network.out.bias) // COARSER**2
        return ScaleTables(
            embeddings=to_int16(network.embeddings, UNIT),
            embedding_bias=to_int16(network.embedding_bias, UNIT),
            near=to_int16(near.reshape(-1, near.shape[3]), weight),
            near_bias=to_int16(network.near.bias, UNIT),
            out=to_int16(out, weight),
            out_bias=to_int16(network.out.bias, UNIT),
            counts=counts_of(logistic_shares()),
            coded=np.array(0, np.uint32),
            group=np.zeros(dim, np.uint32),
        )


def logistic_shares() -> np.ndarray:
    """The probability of each symbol in each class were it logistic, (64, 128)."""
    log2_scale = (LOWEST + (np.arange(CLASSES)[:, None] + 0.5) * (1 << CLASS_LOG2)) / UNIT
    edges = (np.arange(-MOST, MOST + 2) - 0.5) / 2**log2_scale
    below = 1 / (1 + np.exp(-edges.clip(-60, 60)))
    return np.concatenate([np.diff(below, axis=1), 1 - (below[:, -1:] - below[:, :1])], 1).clip(1e-12)


def counts_of(shares: np.ndarray) -> np.ndarray:
    """Shares (64, 128) as counts, uint32, that sum to 2^24 - 128."""
    free = SCALE - SYMBOLS
    counts = (shares / shares.sum(1, keepdims=True) * free).astype(np.int64)
    counts[np.arange(len(counts)), counts.argmax(1)] += free - counts.sum(1)
    return counts.astype(np.uint32)


def calibrate(tables: ScaleTables, samples: Sequence[Sample], rate_weight: float) -> ScaleTables:
    """The same network with counts as they are met, the classes left out that are nearly all zeros, and streams.

    Counts are taken twice: of coefficients rounded to the nearest, which say what bits are worth, and then of those
    rounded with regard to bits.
    """
    logistic, plain = logistic_shares(), thresholds(tables, 0.0)
    met, _ = count(tables, samples, plain, 0)
    shares = met + PRIOR * logistic
    silent = (shares[:, MOST] / shares.sum(1) > SILENT).cumprod().sum()
    tables = replace(tables, counts=counts_of(shares), coded=np.array(silent, np.uint32))
    met, bits = count(tables, samples, thresholds(tables, rate_weight), int(silent))
    return replace(tables, counts=counts_of(met + PRIOR * logistic), group=groups_of(bits, samples))


def count(
    tables: ScaleTables, samples: Sequence[Sample], limits: np.ndarray, coded: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often each symbol was met in each class, r and -r alike, (64, 128); and the bits of each channel (D,)."""
    met, bits = np.zeros(CLASSES * SYMBOLS), np.zeros(tables.dim)
    channels, cost = np.arange(tables.dim), tables.bits()
    for codes, rest in samples:
        for own, left in zip(codes.numpy(), rest.float().numpy(), strict=True):
            log_scales = tables.log_scales(tables.hidden(own), channels, left.shape[1:])
            for exponent in np.linspace(*LOG2_STEPS, LADDER):
                byte = step_byte(2.0**exponent)
                classes = tables.classes(log_scales, byte)
                r = round_to_steps(left / np.float32(step_of(byte)), classes, limits, coded)
                symbols = np.where(np.abs(r) > MOST, ESCAPE, r + MOST)
                met += np.bincount((classes.astype(np.int64) * SYMBOLS + symbols).ravel(), minlength=len(met))
                bits += (cost[classes, symbols] * (classes >= coded)).sum((1, 2))
    both = met.reshape(CLASSES, SYMBOLS)
    both[:, :ESCAPE] = (both[:, :ESCAPE] + both[:, ESCAPE - 1 :: -1]) / 2
    return both, bits


def groups_of(bits: np.ndarray, samples: Sequence[Sample]) -> np.ndarray:
    """The stream of each channel: those of most energy first, each stream with about as many bits."""
    energy = sum(rest.float().square().mean((0, 2, 3)) for _, rest in samples)
    assert isinstance(energy, Tensor)
    order = np.argsort(-energy.numpy(), kind="stable")
    groups = min(GROUPS, len(order))
    shares = np.cumsum(bits[order]) - bits[order] / 2
    group = np.empty(len(order), np.uint32)
    group[order] = np.minimum(shares * groups / max(bits.sum(), 1e-12), groups - 1).astype(np.uint32)
    return np.unique(group, return_inverse=True)[1].astype(np.uint32)
