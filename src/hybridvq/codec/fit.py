"""The tables of a model, fitted to tokens of its training images.

The contextual tables are a small network, trained by gradient descent on the bits it would spend, and then rounded.
Floats end here: what is coded with is what the rounding left.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.codec.format import MAX_CODES, MAX_LEVELS, MAX_STAGES
from hybridvq.codec.integers import LIMIT, UNIT_LOG2, WEIGHT_LOG2
from hybridvq.codec.tables import MARGIN, NEIGHBORS, StageTables, Tables, check_symbols, make_features
from hybridvq.errors import CodecError
from hybridvq.quantizers import Quantizer, TokenSpace
from hybridvq.tokenizer import Tokenizer

WIDTH = 64
STEPS = 2000
POSITIONS = 2048  # of a training step
LEARNING_RATE = 2e-3
WARMUP = 50
UNIT = 1 << UNIT_LOG2

Track = Callable[[Sequence[int], str], Iterable[int]]
"""What goes through steps and shows which are done, and of what."""

Batch = tuple[np.ndarray, np.ndarray | None]
"""codes (B, S, h, w) and gain levels of the same shape, or None."""


def untracked(steps: Sequence[int], doing: str) -> Iterable[int]:
    """The steps as they are, shown to nobody."""
    return steps


def fit_tables(
    batches: Iterable[Batch],
    tokenizer: Tokenizer,
    model: str,
    *,
    width: int = WIDTH,
    steps: int = STEPS,
    seed: int = 0,
    track: Track = untracked,
) -> Tables:
    """The tables that spend few bits on tokens such as these.

    Args:
        batches: codes (B, S, h, w) and gain levels of training images; the size may differ between batches.
        tokenizer: the model that made them.
        model: SHA-256 of its weights, in hexadecimal.
        width: H, of the network's hidden layers.
        steps: of gradient descent, each on 2,048 positions.
        seed: of the first weights and of the positions drawn.
        track: goes through the steps of each stage, and may show them.

    Raises:
        CodecError: the model's tokens hold floats, or there are no tokens, or they are of another model.
    """
    check_codable(tokenizer.quantizer)
    space = tokenizer.quantizer.space()
    pool = make_pool(batches, space.codebook_size, space.levels or 1)
    stages = []
    for stage in range(space.stages):
        shown = track(range(steps), f"tables of stage {stage + 1} of {space.stages}")
        stages.append(fit_stage(pool, stage, space, width, steps, seed, shown))
    return Tables(model, space.codebook_size, space.levels, tuple(stages))


def check_codable(quantizer: Quantizer) -> None:
    """Raise CodecError unless the quantizer's tokens are integers alone, of which a file can hold as many."""
    space = quantizer.space()
    if space.coefficients and not space.codebook_size:
        raise CodecError("this hybrid model has no codes, by which coefficients are coded; train one with groups")
    if space.gain == "float" or space.floats:
        raise CodecError(
            f"tokens of {type(quantizer).__name__} hold floats, which cannot be compressed without loss; train with "
            "--recipe gain-shape, whose gains are levels, or --recipe vector"
        )
    if space.obstacle and not space.coefficients:
        raise CodecError(f"tokens of {type(quantizer).__name__} hold {space.obstacle}, which .hvq files cannot hold")
    for key, most in (("codebook_size", MAX_CODES), ("levels", MAX_LEVELS), ("stages", MAX_STAGES)):
        if (getattr(space, key) or 0) > most:
            raise CodecError(f"{key} of the model is {getattr(space, key)}, and a file holds up to {most}")


@dataclass(frozen=True)
class Pool:
    """The tokens of many images in one row, with margins in which there is no token.

    Attributes:
        pairs: (S, P) int64, level K + code of each place; L K in the margins.
        at: (N,) int64, the places that hold positions.
        stride: (N,) int64, the distance from such a place to the one below.
    """

    pairs: Tensor
    at: Tensor
    stride: Tensor

    def around(self, stage: int, positions: Tensor) -> Tensor:
        """The pairs (n, N + s) that the context of each of n positions is made of, in the order of `Seen.around`."""
        at, stride = self.at[positions], self.stride[positions]
        near = [self.pairs[stage, at + dy * stride + dx] for dy, dx in NEIGHBORS]
        return torch.stack([*near, *self.pairs[:stage, at]], 1)


def make_pool(batches: Iterable[Batch], codebook_size: int, rows: int) -> Pool:
    """All tokens of `batches`; raises CodecError where there are none, or not of 0..K-1 and `rows` levels."""
    pairs, at, stride, offset = [], [], [], 0
    for codes, levels in batches:
        for what, values, size in (("codes", codes, codebook_size), ("levels", levels, rows)):
            if values is not None:
                check_symbols(what, np.asarray(values), size)
        pair = np.asarray(codes, np.int64) + (0 if levels is None else np.asarray(levels, np.int64) * codebook_size)
        margins = ((0, 0), (0, 0), (MARGIN, 0), (MARGIN, MARGIN))
        padded = np.pad(pair, margins, constant_values=rows * codebook_size).swapaxes(0, 1)
        inside = np.zeros(padded.shape[1:], bool)
        inside[:, MARGIN:, MARGIN:-MARGIN] = True
        at.append(offset + np.flatnonzero(inside))
        stride.append(np.full(len(at[-1]), padded.shape[-1]))
        pairs.append(padded.reshape(len(padded), -1))
        offset += inside.size
    if not sum(map(len, at)):
        raise CodecError("there are no tokens to fit tables to; give at least one image")
    return Pool(*(torch.from_numpy(np.concatenate(parts, -1)) for parts in (pairs, at, stride)))


class ContextNetwork(nn.Module):
    """The network that `StageTables` describes, before it is rounded; its logits are in bits."""

    features: Tensor

    def __init__(self, features: Tensor, width: int, codebook_size: int, rows: int) -> None:
        """`features`: (s + 1, L K + 1, F), those of each pair and of none, in this stage s and those before it."""
        super().__init__()
        stage = len(features) - 1
        self.stages = [stage] * len(NEIGHBORS) + list(range(stage))  # of the context, as in `Pool.around`
        self.register_buffer("features", features)
        self.near = nn.Linear(len(self.stages) * features.shape[-1], width)
        self.level_out = nn.Linear(width, rows)
        self.joint = nn.Linear(width, width, bias=False)
        self.joint_bias = nn.Embedding(rows, width)
        self.code_out = nn.Linear(width, codebook_size)
        nn.init.zeros_(self.joint_bias.weight)

    def forward(self, around: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the level (n, L or 1) and, given the levels (n,), of the code (n, K)."""
        hidden = rectify(self.near(self.features[self.stages, around].flatten(1)))
        joint = rectify(self.joint(hidden) + self.joint_bias(levels))
        return self.level_out(hidden), self.code_out(joint)


def rectify(x: Tensor) -> Tensor:
    return x.clamp(0, LIMIT / UNIT)


def fit_stage(
    pool: Pool, stage: int, space: TokenSpace, width: int, steps: int, seed: int, shown: Iterable[int]
) -> StageTables:
    """Count the pairs of a stage, train its network, and round it."""
    k, rows = space.codebook_size, space.levels or 1
    own = pool.pairs[stage, pool.at]
    features = torch.stack([pair_features(space, s) for s in range(stage + 1)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ContextNetwork(features, width, k, rows)
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        positions = torch.randint(len(own), (POSITIONS,), generator=draw)
        level, code = own[positions] // k, own[positions] % k
        level_logits, code_logits = network(pool.around(stage, positions), level)
        return F.cross_entropy(level_logits * log(2), level) + F.cross_entropy(code_logits * log(2), code)

    descend(network, loss, steps, LEARNING_RATE, shown)
    shares = torch.bincount(own, minlength=rows * k).view(-1, k) + 1
    return rounded(network, shares, *code_vectors(space, stage))


def descend(
    network: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float, shown: Iterable[int] | None = None
) -> None:
    """So many steps of Adam on `loss`, which draws what it is measured on; the rate rises at first, and falls to 0."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / WARMUP, 1) * (1 - i / steps))
    for _ in range(steps) if shown is None else shown:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def pair_features(space: TokenSpace, stage: int) -> Tensor:
    """(L K + 1, F): what a neighbor with each pair looks like, and last one that is not there."""
    vectors, gains = code_vectors(space, stage)
    levels, codes = np.divmod(np.arange(max(len(gains), 1) * len(vectors)), len(vectors))
    features = make_features(vectors, gains, codes, levels)
    return F.pad(torch.from_numpy(features).float() / UNIT, (0, 0, 0, 1))


def code_vectors(space: TokenSpace, stage: int) -> tuple[np.ndarray, np.ndarray]:
    """The vector of each code (K, D) and the value of each gain level (L,) or (0,), int16 in units of 2^-8.

    Scaled so that q_l c_k has about unit power.
    """
    with torch.no_grad():
        vectors = space.code_vectors(stage)
        if space.level_values is None:
            return to_int16(vectors / rms(vectors), UNIT), np.zeros(0, np.int16)
        gains = space.level_values[stage]
        return to_int16(vectors, UNIT), to_int16(gains / rms(gains), UNIT)


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt().clamp(min=1e-12)


def rounded(network: ContextNetwork, shares: Tensor, vectors: np.ndarray, gains: np.ndarray) -> StageTables:
    """The tables of a trained network."""
    weight = 1 << WEIGHT_LOG2
    with torch.no_grad():
        return StageTables(
            shares=shares.clamp(max=2**32 - 1).numpy().astype(np.uint32),
            vectors=vectors,
            gains=gains,
            near=to_int16(network.near.weight.T, weight),
            near_bias=to_int16(network.near.bias, UNIT),
            level_out=to_int16(network.level_out.weight.T, weight)[:, : len(gains)],
            level_bias=to_int16(network.level_out.bias, UNIT)[: len(gains)],
            joint=to_int16(network.joint.weight.T, weight),
            joint_bias=to_int16(network.joint_bias.weight, UNIT),
            code_out=to_int16(network.code_out.weight.T, weight),
            code_bias=to_int16(network.code_out.bias, UNIT),
        )


def to_int16(values: Tensor, unit: int) -> np.ndarray:
    """Multiples of 1 / unit, limited to what int16 holds."""
    return np.ascontiguousarray((values.double() * unit).round().clamp(-LIMIT, LIMIT).cpu().numpy().astype(np.int16))
