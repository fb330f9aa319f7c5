"""The tables of a model: every integer that the coder's probabilities are made of.

codec.safetensors ──load_tables──► Tables ─── of_stages ──► StageTables ──► counts out of 2^24
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from hybridvq.codec.integers import LIMIT, SCALE, UNIT_LOG2, check_arrays, layer, relu, softmax_counts, to_counts
from hybridvq.codec.scales import ScaleTables, to_scale_tables
from hybridvq.documents import mapping, parse_json
from hybridvq.errors import CodecError
from hybridvq.writing import write_whole

FILE = "codec.safetensors"
FORMAT, SCALES_FORMAT = 1, 2  # of tables for codes, and for codes and coefficients
SCALES = "scales."
STATIC, CONTEXTUAL = 0, 1  # which of the tables a file is coded with
NEIGHBORS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # (dy, dx); the coder's order visits them before
MARGIN = 2  # as far as they reach


@dataclass(frozen=True)
class StageTables:
    r"""The integers of one stage.

    Static: the share of each pair of level and code. Contextual: a small network that reads what is known of N
    positions coded before, and writes logits, first of the level, then of the code given the level:

        f_n = (q_l c_k, onehot l, 1)            of neighbor n; all zero where there is none
        h   = relu(W [f_1, ..., f_N] + b)       ──► logits of the level, W_l h + b_l
        g   = relu(W_j h + b_j[l])              ──► logits of the code,  W_c g + b_c

    The neighbors are those of NEIGHBORS in the same stage, and the earlier stages at the same position.

    Attributes:
        shares: (L, K) uint32, how often each pair was met; L is 1 where there are no gains.
        vectors: (K, D) int16, c_k in units of 2^-8.
        gains: (L,) int16, q_l in units of 2^-8; (0,) where there are none.
        near, near_bias: (N F, H) and (H,) int16, with F = D + L + 1.
        level_out, level_bias: (H, L) and (L,) int16.
        joint, joint_bias: (H, H) and (L, H) int16; (1, H) where there are no gains.
        code_out, code_bias: (H, K) and (K,) int16.
    """

    shares: np.ndarray
    vectors: np.ndarray
    gains: np.ndarray
    near: np.ndarray
    near_bias: np.ndarray
    level_out: np.ndarray
    level_bias: np.ndarray
    joint: np.ndarray
    joint_bias: np.ndarray
    code_out: np.ndarray
    code_bias: np.ndarray

    @property
    def features(self) -> int:
        """F, the numbers that describe a neighbor."""
        return self.vectors.shape[1] + len(self.gains) + 1

    def features_of(self, codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """f of positions (N,): (N, F) int16."""
        return make_features(self.vectors, self.gains, codes, levels)

    def hidden(self, context: np.ndarray) -> np.ndarray:
        """h of positions whose neighbors are described by `context` (N, n F): (N, H) int16."""
        return relu(layer(context, self._floats["near"], self.near_bias))

    def level_counts(self, hidden: np.ndarray | None, positions: int) -> np.ndarray:
        """(N, L) counts of the levels; static ones without `hidden`."""
        if hidden is None:
            return np.repeat(self._static_levels, positions, 0)
        return softmax_counts(layer(hidden, self._floats["level_out"], self.level_bias))

    def code_counts(self, hidden: np.ndarray | None, levels: np.ndarray) -> np.ndarray:
        """(N, K) counts of the codes given the levels (N,), 0 where there are none; static ones without `hidden`."""
        if hidden is None:
            return self._static_codes[levels]
        joint = relu(layer(hidden, self._floats["joint"], self.joint_bias[levels]))
        return softmax_counts(layer(joint, self._floats["code_out"], self.code_bias))

    @cached_property
    def _static_levels(self) -> np.ndarray:
        return to_counts(self.shares.sum(1, dtype=np.int64)[None])

    @cached_property
    def _static_codes(self) -> np.ndarray:
        return to_counts(self.shares.astype(np.int64))

    @cached_property
    def _floats(self) -> dict[str, np.ndarray]:
        names = ("near", "level_out", "joint", "code_out")
        return {name: getattr(self, name).astype(np.float64) for name in names}


def check_symbols(name: str, values: np.ndarray, size: int) -> None:
    """Raise CodecError unless these are integers from 0 to size - 1."""
    if not np.issubdtype(values.dtype, np.integer):
        raise CodecError(f"{name} are {values.dtype} numbers; only integers can be compressed")
    if values.size and (values.min() < 0 or values.max() >= size):
        raise CodecError(f"{name} lie outside 0 to {size - 1}; these are tokens of another model")


def make_features(vectors: np.ndarray, gains: np.ndarray, codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """What is known of positions by their codes and levels (N,), as their neighbors see it: (N, F) int16."""
    vector, one = vectors[codes].astype(np.int32), 1 << UNIT_LOG2
    kind = np.zeros((len(codes), len(gains)), np.int32)
    if len(gains):
        vector = vector * gains[levels][:, None] >> UNIT_LOG2
        kind[np.arange(len(codes)), levels] = one
    there = np.full((len(codes), 1), one, np.int32)
    return np.concatenate([vector, kind, there], 1).clip(-LIMIT, LIMIT).astype(np.int16)


@dataclass(frozen=True)
class Tables:
    """What tokens of a model are coded with.

    Attributes:
        model: SHA-256 of the tokenizer's weights, in hexadecimal.
        codebook_size: K.
        levels: L, or None where the tokens have no gains.
        of_stages: the tables of each stage.
        scales: those of the coefficients; None where the tokens have none.
    """

    model: str
    codebook_size: int
    levels: int | None
    of_stages: tuple[StageTables, ...]
    scales: ScaleTables | None = None

    @property
    def stages(self) -> int:
        """S."""
        return len(self.of_stages)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of everything that decides a probability; a file holds its first bytes."""
        digest = hashlib.sha256(json.dumps(self._content()).encode())
        for name, array in self._arrays().items():
            digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.digest()

    def static_bits(self, stage: int) -> np.ndarray:
        """What the static tables spend on each pair of a level and a code, (L, K) float64."""
        tables, every = self.of_stages[stage], np.arange(self.levels or 1)
        levels, codes = tables.level_counts(None, 1), tables.code_counts(None, every)
        return -np.log2((levels.T + 1) / SCALE) - np.log2((codes + 1) / SCALE)

    def save(self, folder: Path) -> None:
        """Write codec.safetensors into a model folder, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(folder / FILE, save(self._arrays(), {"codec": json.dumps(self._content())}))

    def _content(self) -> dict[str, int | str]:
        return {
            "format": FORMAT if self.scales is None else SCALES_FORMAT,
            "model": self.model,
            "codebook_size": self.codebook_size,
            "levels": self.levels or 0,
            "stages": self.stages,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        parts: dict[str, StageTables | ScaleTables] = {f"{s}.": stage for s, stage in enumerate(self.of_stages)}
        parts |= {} if self.scales is None else {SCALES: self.scales}
        return {prefix + name: array for prefix, part in parts.items() for name, array in vars_of(part).items()}


def vars_of(stage: StageTables | ScaleTables) -> dict[str, np.ndarray]:
    return {field.name: getattr(stage, field.name) for field in fields(stage)}


def load_tables(folder: Path, model: str | None = None) -> Tables:
    """The tables that `hybridvq fit-codec` wrote into a model folder.

    Args:
        folder: where codec.safetensors is.
        model: SHA-256 of the weights that the tables must be of, in hexadecimal; None to accept any.

    Raises:
        CodecError: there are none, or they cannot be used, or they are of other weights.
    """
    path = folder / FILE
    if not path.is_file():
        raise CodecError(f"{folder} holds no {FILE}, without which nothing can be compressed; run `hybridvq fit-codec`")
    try:
        with safe_open(path, "np") as file:
            described = mapping(parse_json(file.metadata()["codec"]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tables = to_tables(described, arrays)
    except Exception as error:  # the JSON and safetensors readers and numpy each raise their own
        reason = " ".join(str(error).split())[:200]
        raise CodecError(f"{path} cannot be used ({reason}); run `hybridvq fit-codec` again") from error
    if model not in (None, tables.model):
        raise CodecError(
            f"{path} was fitted to weights with SHA-256 {tables.model[:16]}, and the model's have {model[:16]}; run "
            "`hybridvq fit-codec` again"
        )
    return tables


def to_tables(described: Mapping[str, int | str], arrays: Mapping[str, np.ndarray]) -> Tables:
    """Tables from what a file holds; raises ValueError or LookupError where that does not fit together."""
    if described["format"] not in (FORMAT, SCALES_FORMAT):
        raise ValueError(f"format {described['format']}; this version reads up to {SCALES_FORMAT}")
    k, levels, stages = (int(described[key]) for key in ("codebook_size", "levels", "stages"))
    names = [field.name for field in fields(StageTables)]
    of_stages = tuple(StageTables(**{name: arrays[f"{s}.{name}"] for name in names}) for s in range(stages))
    for s, stage in enumerate(of_stages):
        check_shapes(stage, k, levels, of_stages[0].vectors.shape[-1], len(NEIGHBORS) + s)
    model = str(described["model"])
    if stages < 1 or len(bytes.fromhex(model)) != hashlib.sha256().digest_size:
        raise ValueError(f"{stages} stages of the model {model}")
    if described["format"] == FORMAT:
        return Tables(model, k, levels or None, of_stages)
    own = {name.removeprefix(SCALES): array for name, array in arrays.items() if name.startswith(SCALES)}
    return Tables(model, k, levels or None, of_stages, to_scale_tables(own, k, stages))


def check_shapes(stage: StageTables, k: int, levels: int, dim: int, context: int) -> None:
    """Raise ValueError unless the arrays of a stage have the types and shapes of K, L, D and its neighbors."""
    width, rows = len(stage.near_bias), max(levels, 1)
    shapes = {
        "shares": (rows, k),
        "vectors": (k, dim),
        "gains": (levels,),
        "near": (context * (dim + levels + 1), width),
        "near_bias": (width,),
        "level_out": (width, levels),
        "level_bias": (levels,),
        "joint": (width, width),
        "joint_bias": (rows, width),
        "code_out": (width, k),
        "code_bias": (k,),
    }
    kinds = {name: "uint32" if name == "shares" else "int16" for name in shapes}
    check_arrays(vars_of(stage), {name: (kinds[name], shape) for name, shape in shapes.items()})
    if (stage.shares.sum(1, dtype=np.int64) == 0).any():
        raise ValueError("shares has a row without any")
