"""Which tokens stand for an encoder's vectors, where fewer bits are wanted than the nearest ones take."""

import torch
from torch import Tensor

from hybridvq.codec.tables import Tables
from hybridvq.errors import ConfigError
from hybridvq.quantizers import Quantizer, Tokens, nearest_code
from hybridvq.quantizers.base import flatten
from hybridvq.quantizers.gain_shape import grid


class Chooser:
    r"""Choose codes and levels by what they miss and what they cost, stage by stage on what the stage before left.

        r_0 = z,   k_s, l_s = argmin_{j,l} ||r_s - q_l c_j||^2 + lambda b_s(j, l),   r_{s+1} = r_s - q_{l_s} c_{k_s}

    with b = -log2 of the pair's probability in the static tables, also where the contextual ones will code it: those
    depend on choices not yet made. VQ-VAE is the case of one stage and one level of 1. Nothing of it has to be known to
    decode.

    Source: Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector quantization".

    Args:
        quantizer: one whose tokens are codes, and gains on levels or none, in evaluation mode.
        tables: of the same model.
        stages: how many of its stages to use.
        rate_weight: lambda, in squared units of what is quantized a bit.

    Raises:
        ConfigError: its tokens are others.
    """

    def __init__(self, quantizer: Quantizer, tables: Tables, stages: int, rate_weight: float) -> None:
        self.quantizer = quantizer
        self.space = quantizer.space()
        if self.space.obstacle or self.space.gain == "float":
            raise ConfigError(
                f"{type(quantizer).__name__} cannot weigh bits; only tokens of codes, and gains on levels or none, can"
            )
        device = self.space.code_vectors(0).device
        self._vectors = [self._of_stage(s) for s in range(stages)]
        bits = (torch.from_numpy(tables.static_bits(s)) for s in range(stages))
        self._costs = [(rate_weight * b).float().flatten().to(device) for b in bits]

    def _of_stage(self, stage: int) -> Tensor:
        """q_l c_j, (L K, D), the levels in the outer order."""
        vectors = self.space.code_vectors(stage).detach()
        if self.space.level_values is None:
            return vectors
        return (self.space.level_values[stage][:, None, None] * vectors).flatten(0, 1)

    def __call__(self, z: Tensor) -> Tokens:
        """The tokens of encoder outputs z (B, D, h, w)."""
        inner = self.quantizer.in_code_space(z)
        r, codes, levels = flatten(inner), [], []
        for vectors, costs in zip(self._vectors, self._costs, strict=True):
            pair = nearest_code(r, vectors, costs)
            codes.append(pair % self.space.codebook_size)
            levels.append(pair // self.space.codebook_size)
            r = r - vectors[pair]
        gains = grid(torch.stack(levels, 1), inner) if self.space.levels else None
        return Tokens(codes=grid(torch.stack(codes, 1), inner), gains=gains)

    def power(self) -> float:
        """The mean square length of the vectors of the first stage, the natural unit of lambda."""
        return float(self._vectors[0].square().sum(1).mean())
