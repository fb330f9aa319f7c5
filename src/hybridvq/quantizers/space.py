"""The tokens of a quantizer: how many numbers each position takes, from which alphabets, and what they mean."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hybridvq.errors import ConfigError, ShapeError
from hybridvq.quantizers.tokens import Tokens


@dataclass(frozen=True, eq=False)
class TokenSpace:
    """The values that tokens take, and their geometry: a position is read as sum_s g_s v_s[k_s].

    Attributes:
        codebook_size: K; 0 where there are no codes.
        stages: S, codes of a position.
        gain: whether a code comes with no gain, with one of L levels, or with a float.
        level_values: (S, L) float32, the gain that each level stands for; None without levels.
        vectors: v, (K, C) float32, the vectors of the codes, or (S, K, C) where each stage has its own. None where
            codes are not read as a sum of vectors: such tokens get no prior and no codec. Where they are, the first
            codes of a position alone are tokens too.
        floats: D, the length of the vectors that are passed through; 0 where none is.
        passed: whether the floats, gains or vectors, are read at some positions only; which, follows from the codes.
        coefficients: D, how many rounded coefficients stand beside the codes at a position; 0 where none does. They may
            be left out.
        coarser: positions of the coefficients on a side that one position of the codes stands for.
    """

    codebook_size: int = 0
    stages: int = 1
    gain: Literal["none", "levels", "float"] = "none"
    level_values: Tensor | None = None
    vectors: Tensor | None = None
    floats: int = 0
    passed: bool = False
    coefficients: int = 0
    coarser: int = 1

    @property
    def levels(self) -> int | None:
        """L, where gains are levels."""
        return None if self.level_values is None else self.level_values.shape[1]

    @property
    def dim(self) -> int:
        """C, the length of a code vector."""
        return self.code_vectors(0).shape[1]

    @property
    def has_own_vectors(self) -> bool:
        """Whether each stage has vectors of its own."""
        return self.vectors is not None and self.vectors.ndim == 3

    def code_vectors(self, stage: int) -> Tensor:
        """The vectors (K, C) of the codes of a stage."""
        assert self.vectors is not None
        return self.vectors[stage] if self.has_own_vectors else self.vectors

    @property
    def codes_alone(self) -> "TokenSpace":
        """The space of the same tokens without the coefficients that may be left out."""
        return replace(self, coefficients=0, coarser=1) if self.codebook_size else self

    @property
    def obstacle(self) -> str:
        """Why tokens are not a code, or a code and a gain, at every position, as what they hold; empty where they are.

        Priors, files and the web page take such tokens alone.
        """
        if self.passed:
            return f"{'vectors' if self.floats else 'gains'} at some positions only"
        if self.floats or self.coefficients:
            return "vectors" if self.floats else "coefficients"
        return "" if self.vectors is not None else "codes without a vector for each"

    def check(self, tokens: Tokens) -> None:
        """Raise unless these are tokens of this space.

        Raises:
            ConfigError: they hold other things, or values out of range.
            ShapeError: they have another shape.
        """
        self._check_parts(tokens)
        own = {"codes": self.stages, "vectors": self.floats, "passed": 1, "coefficients": self.coefficients}
        grids = {}
        for name in own.keys() & tokens.parts.keys():
            shape, few = (
                tuple(tokens.parts[name].shape),
                name == "codes" and self.vectors is not None and not self.coefficients,
            )
            if len(shape) != 4 or not (1 <= shape[1] <= own[name] if few else shape[1] == own[name]):
                count = f"1 to {own[name]}" if few and own[name] > 1 else own[name]
                raise ShapeError(f"the {name} have shape {shape}; they must be (batch, {count}, height, width)")
            fine = (shape[2], shape[3]) if name != "coefficients" else tuple(-(-n // self.coarser) for n in shape[2:])
            grids[name] = (shape[0], *fine)
        if len(set(grids.values())) > 1:
            shapes = " and ".join(f"the {name} {tuple(tokens.parts[name].shape)}" for name in sorted(grids))
            raise ShapeError(f"these tokens do not belong together: {shapes} are of other images or positions")
        if tokens.step is not None and tokens.step.shape != (len(tokens),):
            raise ShapeError(f"step has shape {tuple(tokens.step.shape)}; give one for each of {len(tokens)} images")
        self._check_values(tokens)

    def _check_parts(self, tokens: Tokens) -> None:
        needed = {
            "codes": self.codebook_size > 0,
            "gains": self.gain != "none",
            "vectors": self.floats > 0,
            "passed": self.passed,
            "coefficients": self.coefficients > 0,
            "step": tokens.coefficients is not None,
        }
        optional = {"coefficients"} if self.codebook_size else set()
        for name, is_needed in needed.items():
            is_there = name in tokens.parts
            if is_there and not is_needed:
                raise ConfigError(f"these tokens hold {name}, and this model's do not; they are of another model")
            if is_needed and not is_there and name not in optional:
                raise ConfigError(f"these tokens hold no {name}, and this model's do; they are of another model")

    def _check_values(self, tokens: Tokens) -> None:
        codes, gains = tokens.codes, tokens.gains
        if codes is not None:
            check_indices("codes", codes, self.codebook_size)
        for name, kind in (("vectors", "floats"), ("step", "floats"), ("coefficients", "whole numbers")):
            part = tokens.parts.get(name)
            if part is not None and part.is_floating_point() != (kind == "floats"):
                raise ConfigError(f"the {name} are {part.dtype}; they must be {kind}")
        if tokens.step is not None and not (tokens.step > 0).all():
            raise ConfigError(f"step is {tokens.step.tolist()}; it must be all positive")
        if tokens.passed is not None and tokens.passed.dtype != torch.bool:
            raise ConfigError(f"passed is {tokens.passed.dtype}; it says yes or no of each position, as bool")
        if gains is None or codes is None:
            return
        if gains.shape != codes.shape:
            raise ShapeError(f"the gains have shape {tuple(gains.shape)}, and the codes {tuple(codes.shape)}")
        if gains.is_floating_point() != (self.gain == "float"):
            kinds = ("levels", "floats") if self.gain == "float" else ("floats", "levels")
            raise ConfigError(f"these gains are {kinds[0]}, and this model has {kinds[1]}")
        if self.levels:
            check_indices("gains", gains, self.levels)


def check_indices(name: str, values: Tensor, size: int) -> None:
    """Raise ConfigError unless all `values` lie between 0 and size - 1."""
    if values.is_floating_point() or values.dtype == torch.bool:
        raise ConfigError(f"the {name} are {values.dtype}; they must be whole numbers from 0 to {size - 1}")
    if values.numel():
        low, high = (int(v) for v in values.aminmax())
        if low < 0 or high >= size:
            raise ConfigError(f"one of the {name} is {low if low < 0 else high}; they go from 0 to {size - 1}")
