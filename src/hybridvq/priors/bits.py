"""What tokens cost under a prior, in bits."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridvq.devices import evaluating
from hybridvq.errors import ConfigError, DataError
from hybridvq.metrics import grid_levels, grid_values
from hybridvq.priors.base import Prior
from hybridvq.priors.gains import Cells
from hybridvq.quantizers import Tokens
from hybridvq.ranges import check_count


@dataclass(frozen=True)
class Bits:
    """Bits per position, -log2 p, summed over its stages.

    Attributes:
        code: of the codes given their past.
        gain: of the gains given their code and past; of float gains minus the log2 of a density, which may be negative
            and compares with nothing but densities of the same gains, or the bits of their cell of a grid.
    """

    code: float
    gain: float

    @property
    def total(self) -> float:
        return self.code + self.gain


@dataclass(frozen=True)
class GainGrid:
    """The 2**bits evenly spaced values from `low` to `high`, ends included, that float gains are rounded to.

    Raises:
        ConfigError: low is not below high, one of them is not finite, or bits is not 1 to 16.
    """

    low: float
    high: float
    bits: int

    def __post_init__(self) -> None:
        check_count("bits", self.bits, 1, 16)
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"a grid goes from a low to a higher value, not from {self.low} to {self.high}")

    def round(self, tokens: Tokens) -> tuple[Tokens, Cells]:
        """Tokens with rounded gains, and the edges of their cells; the outer cells have no end.

        Raises:
            ConfigError: these gains are no floats.
        """
        if tokens.gains is None or not tokens.gains.is_floating_point():
            raise ConfigError("a grid is for float gains, and these tokens have none; leave it out")
        levels = grid_levels(tokens.gains, self.low, self.high, self.bits)
        gains = grid_values(levels, self.low, self.high, self.bits)
        half = (self.high - self.low) / (2**self.bits - 1) / 2
        lower = torch.where(levels == 0, -math.inf, gains - half)
        upper = torch.where(levels == 2**self.bits - 1, math.inf, gains + half)
        return Tokens(codes=tokens.codes, gains=gains), (lower, upper)


@torch.inference_mode()
def bits_per_position(
    prior: Prior, batches: Iterable[tuple[Tokens, Tensor | None]], grid: GainGrid | None = None
) -> Bits:
    """The mean over all positions of the tokens, and labels, in `batches`, in evaluation mode.

    With a `grid`, float gains are rounded to it, and the mass of each value's cell is counted.

    Raises:
        ConfigError: there is a grid, and gains are no floats.
        DataError: there are no batches.
    """
    code, gain, positions = 0.0, 0.0, 0
    with evaluating(prior) as device:
        for given, label in batches:
            tokens, cells = grid.round(given.to(device)) if grid else (given.to(device), None)
            score = prior.score(tokens, None if label is None else label.to(device), cells)
            code -= float(score.code.double().sum())
            gain -= 0.0 if score.gain is None else float(score.gain.double().sum())
            positions += score.code[:, 0].numel()
    if not positions:
        raise DataError("there are no tokens to measure the prior on")
    return Bits(code / positions / math.log(2), gain / positions / math.log(2))
