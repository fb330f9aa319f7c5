"""Tables and tokens made of integers from a seed, by arithmetic that no library can change."""

import numpy as np

from hybridvq.codec import ScaleTables, StageTables, Tables
from hybridvq.codec.integers import to_counts
from hybridvq.codec.scales import CLASSES, COARSER, SYMBOLS
from hybridvq.codec.tables import NEIGHBORS, to_tables, vars_of  # noqa: F401

MODEL = "5e" * 32


def integers(seed: int, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Pseudo-random integers in [low, high) from a linear congruential generator (MINSTD, Park and Miller 1988)."""
    values, state = [], 2 * seed + 1
    for _ in range(int(np.prod(shape))):
        state = state * 48271 % 2147483647
        values.append(low + (state >> 8) % (high - low))
    return np.array(values, np.int64).reshape(shape)


def stage(seed: int, k: int, levels: int, dim: int, width: int, context: int) -> StageTables:
    rows, features = max(levels, 1), dim + levels + 1

    def weights(number: int, *shape: int, high: int = 400) -> np.ndarray:
        return integers(100 * seed + number, -high, high, shape).astype(np.int16)

    return StageTables(
        shares=(integers(100 * seed, 0, 50, (rows, k)) + 1).astype(np.uint32),
        vectors=weights(1, k, dim),
        gains=np.sort(integers(100 * seed + 2, 50, 700, (levels,))).astype(np.int16),
        near=weights(3, context * features, width),
        near_bias=weights(4, width),
        level_out=weights(5, width, levels),
        level_bias=weights(6, levels),
        joint=weights(7, width, width),
        joint_bias=weights(8, rows, width),
        code_out=weights(9, width, k),
        code_bias=weights(10, k),
    )


def tables(k: int = 16, levels: int | None = 4, stages: int = 1, dim: int = 3, width: int = 8, seed: int = 1) -> Tables:
    made = [stage(seed + s, k, levels or 0, dim, width, len(NEIGHBORS) + s) for s in range(stages)]
    return Tables(MODEL, k, levels, tuple(made))


def tokens(
    h: int, w: int, k: int = 16, levels: int | None = 4, stages: int = 1, seed: int = 7
) -> tuple[np.ndarray, np.ndarray | None]:
    codes = integers(seed, 0, k, (stages, h, w))
    return codes, integers(seed + 1, 0, levels, (stages, h, w)) if levels else None


def scales(k: int, stages: int, group: tuple[int, ...] = (0, 1, 1), inner: int = 4, width: int = 5) -> ScaleTables:
    """Tables of coefficients, whose classes differ from place to place."""
    dim = len(group)

    def weights(number: int, *shape: int, high: int = 900) -> np.ndarray:
        return integers(1000 + number, -high, high, shape).astype(np.int16)

    near = np.abs(np.arange(SYMBOLS) - (SYMBOLS // 2 - 1))
    falling = (1 << 20) >> (8 * near // (np.arange(CLASSES)[:, None] + 1)).clip(0, 20)
    return ScaleTables(
        embeddings=weights(1, stages, k, inner),
        embedding_bias=weights(2, inner),
        near=weights(3, 9 * inner, width),
        near_bias=weights(4, width),
        out=weights(5, width, COARSER**2 * dim),
        out_bias=weights(6, COARSER**2 * dim),
        counts=to_counts(falling.astype(np.int64)).astype(np.uint32),
        coded=np.array(12, np.uint32),
        group=np.array(group, np.uint32),
    )


def hybrid_tables(k: int = 16, stages: int = 2) -> Tables:
    made = [stage(1 + s, k, 0, 3, 8, len(NEIGHBORS) + s) for s in range(stages)]
    return Tables(MODEL, k, None, tuple(made), scales(k, stages))
