"""The scale class of every coefficient, from the codes and the step, in integers alone.

codes (G,h,w) ──ScaleTables.log_scales──► log2 s (D,4h,4w) ──classes──► 0..63, one static table of counts each

Two machines must agree on these classes, and on nothing else, to read the same coefficients.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from math import log2

import numpy as np

from hybridvq.codec.integers import LIMIT, SCALE, UNIT_LOG2, check_arrays, layer, relu

COARSER = 4  # positions per side that one group of codes stands for
CLASSES, CLASS_LOG2 = 64, UNIT_LOG2 - 2  # a class is a quarter of an octave wide
LOWEST = -5 << UNIT_LOG2  # log2 (s / step) of class 0, in units of 2^-8
MOST = 63  # the largest |r| that has a symbol of its own
ESCAPE = 2 * MOST + 1  # the symbol of all others
SYMBOLS = ESCAPE + 1
STEP_UNIT_LOG2, STEP_ZERO = 5, 128  # a step is 2^((byte - 128) / 32)
ROWS = 2**13  # coarse positions computed together


def step_byte(step: float) -> int:
    """The byte of the step nearest to `step`, from 1/16 to 15.7."""
    return min(max(round(log2(step) * (1 << STEP_UNIT_LOG2)) + STEP_ZERO, 0), 255)


def step_of(byte: int) -> float:
    return float(2.0 ** ((byte - STEP_ZERO) / (1 << STEP_UNIT_LOG2)))


@dataclass(frozen=True)
class ScaleTables:
    r"""The integers between codes and the probabilities of coefficients.

    A network reads the codes of 3x3 coarse positions, with zeros where there is no position, and writes the logarithm
    of a scale for each of the D coefficients of the 16 positions that the middle one covers:

        a = relu(sum_g E_g[code_g] + b_E),   h = relu(W [a of the 9] + b),   log2 s = W_o h + b_o    in units of 2^-8

    The step's logarithm is an integer too: class = floor((log2 s - log2 step + 5) 4), cut to 0..63.

    Attributes:
        embeddings: (G, K, A) int16, E.
        embedding_bias: (A,) int16.
        near, near_bias: (9 A, H) and (H,) int16, the nine positions in row-major order.
        out, out_bias: (H, 16 D) and (16 D,) int16; of the 16 positions in row-major order D numbers each.
        counts: (64, 128) uint32, of each class the counts of r = -63, ..., 63 and of all others, 2^24 - 128 in all.
        coded: () uint32, the first class that is coded; coefficients of those below are 0.
        group: (D,) uint32, the stream that a channel is in, 0 for the first.
    """

    embeddings: np.ndarray
    embedding_bias: np.ndarray
    near: np.ndarray
    near_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    counts: np.ndarray
    coded: np.ndarray
    group: np.ndarray

    @property
    def dim(self) -> int:
        """D."""
        return len(self.group)

    @property
    def groups(self) -> int:
        """Streams of coefficients."""
        return int(self.group.max()) + 1

    def channels(self, group: int) -> np.ndarray:
        """The channels of a stream, in order."""
        return np.flatnonzero(self.group == group)

    def hidden(self, codes: np.ndarray) -> np.ndarray:
        """h of codes (G, h, w): (h, w, H) int16."""
        height, width = codes.shape[1:]
        summed = np.zeros((height, width, self.embeddings.shape[2]), np.int32)
        for embedding, of_group in zip(self.embeddings, codes, strict=True):
            summed += embedding[of_group]
        a = np.zeros((height + 2, width + 2, summed.shape[2]), np.int16)
        a[1:-1, 1:-1] = relu(summed + self.embedding_bias)
        hidden = np.empty((height, width, len(self.near_bias)), np.int16)
        rows = max(1, ROWS // width)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            around = [a[top + dy : bottom + dy, dx : dx + width] for dy in range(3) for dx in range(3)]
            flat = np.concatenate(around, -1).reshape(-1, len(self._near))
            hidden[top:bottom] = relu(layer(flat, self._near, self.near_bias)).reshape(bottom - top, width, -1)
        return hidden

    def log_scales(self, hidden: np.ndarray, channels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """log2 s of `channels` at `size` positions, (len(channels), h, w) int16 in units of 2^-8."""
        height, width, n = hidden.shape[0], hidden.shape[1], len(channels)
        columns = (np.arange(COARSER**2)[:, None] * self.dim + channels).ravel()
        weights, bias = self._out[:, columns], self.out_bias[columns]
        fine = np.empty((n, COARSER * height, COARSER * width), np.int16)
        rows = max(1, ROWS // width)
        for top in range(0, height, rows):
            part = hidden[top : top + rows]
            flat = layer(part.reshape(-1, part.shape[2]), weights, bias).clip(-LIMIT, LIMIT).astype(np.int16)
            cells = flat.reshape(len(part), width, COARSER, COARSER, n).transpose(4, 0, 2, 1, 3)
            fine[:, COARSER * top : COARSER * (top + len(part))] = cells.reshape(n, -1, COARSER * width)
        return fine[:, : size[0], : size[1]]

    def classes(self, log_scales: np.ndarray, byte: int) -> np.ndarray:
        """The classes of coefficients counted in the step of `byte`: 0..63, uint8 of the same shape."""
        log2_step = (byte - STEP_ZERO) << (UNIT_LOG2 - STEP_UNIT_LOG2)
        above = log_scales.astype(np.int32) - (log2_step + LOWEST)
        return (above >> CLASS_LOG2).clip(0, CLASSES - 1).astype(np.uint8)

    def bits(self) -> np.ndarray:
        """What each symbol of each class takes, (64, 128) float64; an escaped number takes more."""
        return -np.log2((self.counts.astype(np.int64) + 1) / SCALE)

    @cached_property
    def _near(self) -> np.ndarray:
        return self.near.astype(np.float64)

    @cached_property
    def _out(self) -> np.ndarray:
        return self.out.astype(np.float64)


def to_scale_tables(arrays: Mapping[str, np.ndarray], codebook_size: int, stages: int) -> ScaleTables:
    """Tables from the arrays of a file; raises ValueError or LookupError where they do not fit together."""
    tables = ScaleTables(**{field.name: arrays[field.name] for field in fields(ScaleTables)})
    a, h, dim = len(tables.embedding_bias), len(tables.near_bias), len(tables.group)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "scales.embeddings": ("int16", (stages, codebook_size, a)),
        "scales.embedding_bias": ("int16", (a,)),
        "scales.near": ("int16", (9 * a, h)),
        "scales.near_bias": ("int16", (h,)),
        "scales.out": ("int16", (h, COARSER**2 * dim)),
        "scales.out_bias": ("int16", (COARSER**2 * dim,)),
        "scales.counts": ("uint32", (CLASSES, SYMBOLS)),
        "scales.coded": ("uint32", ()),
        "scales.group": ("uint32", (dim,)),
    }
    check_arrays({f"scales.{name}": array for name, array in arrays.items()}, shapes)
    if (tables.counts.sum(1, dtype=np.int64) != SCALE - SYMBOLS).any():
        raise ValueError(f"scales.counts has a row that does not sum to {SCALE - SYMBOLS}")
    if not dim or len(np.unique(tables.group)) != tables.group.max() + 1:
        raise ValueError("scales.group leaves a stream without channels")
    return tables
