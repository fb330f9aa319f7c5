"""Integer arithmetic of the codec: from integer weights and logits to counts out of 2^24.

A probability that differed in its last digit between two machines would turn a file into noise, so nothing here rounds
as a machine likes.
"""

from collections.abc import Mapping
from math import isqrt, log2

import numpy as np

SCALE = 2**24  # probabilities are multiples of 1 / SCALE, the range coder's own unit
FLOOR_LOG2 = 8  # a 256th of the probability is shared out evenly: no symbol is impossible, and no grid is free
UNIT_LOG2 = 8  # activations and logits are multiples of 2^-8, logits in bits
WEIGHT_LOG2 = 10  # weights are multiples of 2^-10
LIMIT = 2**15 - 1  # of activations and weights, int16


def check_arrays(arrays: Mapping[str, np.ndarray], due: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise ValueError unless each array has the type and shape that are `due`."""
    for name, (dtype, shape) in due.items():
        array = arrays[name]
        if array.dtype.name != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype.name} {array.shape} and not {dtype} {shape}")


def powers_of_two() -> np.ndarray:
    """floor(2^(30 + j / 256)) for j = 0, ..., 255: a 256th root is eight square roots, and isqrt is exact."""
    mantissas = []
    for j in range(256):
        root = 1 << (30 * 256 + j)
        for _ in range(UNIT_LOG2):
            root = isqrt(root)
        mantissas.append(root)
    return np.array(mantissas)


EXP2_BITS = 20
_BELOW = np.arange(EXP2_BITS << UNIT_LOG2)  # 256ths of a bit below the largest logit
EXP2 = powers_of_two()[-_BELOW & 255] >> (10 + (-(-_BELOW >> UNIT_LOG2)))
"""floor(2^(20 - d / 256)): the weight of a logit d 256ths of a bit below the largest."""


def to_counts(weights: np.ndarray) -> np.ndarray:
    """Counts (N, n) in proportion to integer weights (N, n), each row summing to SCALE - n exactly.

    A 256th of the probability is shared out evenly, the rest by weight, rounded down; what that leaves goes to the
    largest.
    """
    n = weights.shape[1]
    floor = (SCALE >> FLOOR_LOG2) // n
    free = SCALE - n - n * floor
    per_weight = (free << 20) // weights.sum(1, keepdims=True)
    counts = floor + (weights * per_weight >> 20)
    rows = np.arange(len(counts))
    counts[rows, weights.argmax(1)] += SCALE - n - counts.sum(1)
    return counts


def least_bits(n: int) -> float:
    """The fewest bits that one of n symbols takes, whatever the weights: those of the largest count of `to_counts`."""
    floor = (SCALE >> FLOOR_LOG2) // n
    return log2(SCALE / (SCALE - n - (n - 1) * floor + 1))


def softmax_counts(logits: np.ndarray) -> np.ndarray:
    """Counts (N, n) in proportion to 2^(logit / 256) of integer logits (N, n)."""
    below = logits.max(1, keepdims=True) - logits
    return to_counts(EXP2[np.minimum(below, len(EXP2) - 1)])


def layer(a: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """a W + b, rounded down to units of 2^-8: (N, m) int64 from a (N, n) int16, W (n, m) and b (m,) or (N, m)."""
    return (exact_product(a, weights) >> WEIGHT_LOG2) + bias


def relu(a: np.ndarray) -> np.ndarray:
    """max(a, 0), and not above what int16 holds."""
    return a.clip(0, LIMIT).astype(np.int16)


def exact_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of int16 matrices, int64; b may be float64 that holds them.

    Computed by the float64 product, which is 20 times as fast as numpy's of integers and here the same: products are
    below 2^30 and partial sums of up to 2^23 of them are integers below 2^53, which float64 holds exactly in whatever
    order a machine adds them.
    """
    return (a.astype(np.float64) @ b.astype(np.float64, copy=False)).astype(np.int64)
