"""Which tokens stand for an encoder's vectors, where fewer bits are wanted than the nearest ones take."""

import torch
from torch import Tensor

from hybridvq.codec.tables import Tables, kept_levels
from hybridvq.errors import ConfigError
from hybridvq.quantizers import Quantizer, Tokens, nearest_code
from hybridvq.quantizers.base import flatten, nearest_direction
from hybridvq.quantizers.gain_shape import grid


class Chooser:
    r"""Choose codes and levels by what they miss and what they cost, stage by stage on what the stage before left.

        r_0 = z,   k_s, l_s = argmin_{j,l} ||r_s - q_l c_j||^2 + lambda b_s(j, l),   r_{s+1} = r_s - q_{l_s} c_{k_s}

    with l among the levels that `gain_step` keeps and b = -log2 of the pair's probability in the static tables, also
    where the contextual ones will code it: those depend on choices not yet made. VQ-VAE is the case of one stage and
    one level of 1. Nothing of it has to be known to decode.

    With a lambda of 0 the code is the model's own and the level the nearest kept: a code that another level would suit
    better is a rare one at this level, and costs more than it mends.

    Source: Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector quantization".

    Args:
        quantizer: one whose tokens are codes, and gains on levels or none, in evaluation mode.
        tables: of the same model.
        stages: how many of its stages to use.
        gain_step: leave out so many levels between two, see `kept_levels`.
        rate_weight: lambda, in squared units of what is quantized a bit.

    Raises:
        ConfigError: its tokens are others.
    """

    def __init__(self, quantizer: Quantizer, tables: Tables, stages: int, gain_step: int, rate_weight: float) -> None:
        self.quantizer, self.rate_weight = quantizer, rate_weight
        self.space = quantizer.space()
        if self.space.obstacle or self.space.gain == "float":
            raise ConfigError(
                f"{type(quantizer).__name__} cannot weigh bits or use fewer levels; only tokens of codes, and gains on "
                "levels or none, can"
            )
        device = self.space.code_vectors(0).device
        self.levels = torch.from_numpy(kept_levels(tables.levels or 1, gain_step)).to(device)
        self._vectors = [self._of_stage(s) for s in range(stages)]
        bits = (torch.from_numpy(tables.static_bits(s, gain_step)) for s in range(stages))
        self._costs = [(rate_weight * b).float().flatten().to(device) for b in bits]

    def _of_stage(self, stage: int) -> Tensor:
        """q_l c_j, (L K, D), the levels in the outer order."""
        vectors = self.space.code_vectors(stage).detach()
        if self.space.level_values is None:
            return vectors
        return (self.space.level_values[stage][self.levels, None, None] * vectors).flatten(0, 1)

    def __call__(self, z: Tensor) -> Tokens:
        """The tokens of encoder outputs z (B, D, h, w)."""
        inner = self.quantizer.in_code_space(z)
        r, codes, levels = flatten(inner), [], []
        for stage, (vectors, costs) in enumerate(zip(self._vectors, self._costs, strict=True)):
            pair = nearest_code(r, vectors, costs) if self.rate_weight else self._nearest(r, stage)
            k = len(vectors) // len(self.levels)
            codes.append(pair % k)
            levels.append(self.levels[pair // k])
            r = r - vectors[pair]
        gains = grid(torch.stack(levels, 1), inner) if self.space.levels else None
        return Tokens(codes=grid(torch.stack(codes, 1), inner), gains=gains)

    def _nearest(self, r: Tensor, stage: int) -> Tensor:
        """The pair (N,) of each row of r (N, D): the direction first, then its nearest kept level."""
        directions = self.space.code_vectors(stage)
        k = nearest_direction(r, directions)
        of_levels = self._vectors[stage].unflatten(0, (len(self.levels), -1))[:, k]  # (L', N, D)
        return (r - of_levels).square().sum(2).argmin(0) * len(directions) + k

    def power(self) -> float:
        """The mean square length of the vectors of the first stage, the natural unit of lambda."""
        return float(self._vectors[0].square().sum(1).mean())
