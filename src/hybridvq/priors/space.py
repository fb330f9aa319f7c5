"""What the tokens of a tokenizer are: how many codes and gains, and what they stand for."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hybridvq.errors import ConfigError, ShapeError
from hybridvq.quantizers import QUANTIZERS, FrequencyQuantizer, GainShapeQuantizer, Quantizer, Tokens, VectorQuantizer
from hybridvq.quantizers.base import check_indices
from hybridvq.quantizers.levels import GainLevels
from hybridvq.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class TokenSpace:
    """The values that tokens take, and their geometry: a position is read as sum_s g_s vectors[k_s].

    Attributes:
        codebook_size: K.
        stages: S, codes of a position.
        gain: whether a code comes with no gain, with one of L levels, or with a float.
        level_values: (S, L) float32, the gain that each level stands for; None without levels.
        vectors: (K, C) float32, the codebook: unit directions, or codes of any length.
    """

    codebook_size: int
    stages: int
    gain: Literal["none", "levels", "float"]
    level_values: Tensor | None
    vectors: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenSpace":
        """The space of a tokenizer's tokens.

        Raises:
            ConfigError: its tokens are not codes and gains at every position.
        """
        quantizer = tokenizer.quantizer
        if isinstance(quantizer, GainShapeQuantizer):
            levels = [part.values for part in quantizer.gain_levels if isinstance(part, GainLevels)]
            gain: Literal["levels", "float"] = "levels" if levels else "float"
            values = torch.stack(levels).float().clone() if levels else None
            return cls(quantizer.codebook_size, quantizer.stages, gain, values, _copy(quantizer.directions.weight))
        if isinstance(quantizer, FrequencyQuantizer) or not isinstance(quantizer, VectorQuantizer):
            raise ConfigError(
                f"the tokens of a {_name(quantizer)} tokenizer are not a code, or a code and a gain, at every "
                "position, so no prior here can model them; use a vector, projected or gain-shape tokenizer"
            )
        plain = type(quantizer) is VectorQuantizer
        return cls(quantizer.codebook_size, 1, "none" if plain else "float", None, _copy(quantizer.codebook.weight))

    @property
    def levels(self) -> int | None:
        """L, where gains are levels."""
        return None if self.level_values is None else self.level_values.shape[1]

    @property
    def dim(self) -> int:
        """C, the length of a code vector."""
        return self.vectors.shape[1]

    def check(self, tokens: Tokens) -> None:
        """Raise unless these are tokens of this space.

        Raises:
            ConfigError: they hold other things, or values out of range.
            ShapeError: they have another shape, or there are none.
        """
        codes, gains = tokens.codes, tokens.gains
        if codes is None or tokens.vectors is not None or tokens.passed is not None:
            raise ConfigError("these tokens are not a code at every position; they were made by another tokenizer")
        if codes.ndim != 4 or codes.shape[1] != self.stages or not codes.numel():
            shape = f"(batch, {self.stages}, height, width)"
            raise ShapeError(f"the codes have shape {tuple(codes.shape)}; this prior takes {shape}, none of them 0")
        check_indices("codes", codes, self.codebook_size)
        if (gains is None) != (self.gain == "none"):
            has, models = ("no", "models them") if gains is None else ("", "is of codes alone")
            raise ConfigError(f"these tokens hold {has} gains, and this prior {models}".replace("  ", " "))
        if gains is None:
            return
        if gains.shape != codes.shape:
            raise ShapeError(f"the gains have shape {tuple(gains.shape)}, and the codes {tuple(codes.shape)}")
        if gains.is_floating_point() != (self.gain == "float"):
            kinds = ("levels", "floats") if self.gain == "float" else ("floats", "levels")
            raise ConfigError(f"these gains are {kinds[0]}, and this prior models {kinds[1]}")
        if self.levels:
            check_indices("gains", gains, self.levels)


def _copy(vectors: Tensor) -> Tensor:
    return vectors.detach().float().clone()


def _name(quantizer: Quantizer) -> str:
    return next((name for name, kind in QUANTIZERS.items() if type(quantizer) is kind), type(quantizer).__name__)
