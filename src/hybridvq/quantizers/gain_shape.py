"""Our hybrid: unit-norm directions, and a gain of a finite number of levels."""

from typing import Literal

import torch
from torch import Tensor, nn

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import (
    Quantized,
    Quantizer,
    Tokens,
    flatten,
    mean_square,
    nearest_code,
    rotate,
    straight_through,
)
from hybridvq.quantizers.codebook import Directions
from hybridvq.quantizers.levels import GainLevels, PairShares
from hybridvq.quantizers.space import TokenSpace
from hybridvq.ranges import LARGEST_STEP, check_count, check_weight

LARGEST_STAGES, LARGEST_LEVELS = 2**8, 2**16


class GainShapeQuantizer(Quantizer):
    r"""Write each encoder vector as a gain along one of K unit directions, S times over.

        r_0 = z
        k_s = argmax_j <r_s, c_j>                      ||c_j|| = 1, j in {0, ..., K-1}
        g_s = <r_s, c_{k_s}>
        r_{s+1} = r_s - Q(g_s) c_{k_s}                 Q: the nearest of L levels, or the identity
        z_hat = sum_s Q(g_s) c_{k_s}

    With a rate weight lambda > 0, code and level are chosen together, by what they cost as well as by what they miss:

        k_s, l_s = argmin_{j,l} ||r_s - q_l c_j||^2 + lambda b_{jl}        b = -log2 of the pair's share of positions

    so that short vectors, which a direction hardly changes, share few of them, and the tokens take fewer bits for some
    more error.

    For S = 1 this is gain-shape vector quantization, for S > 1 matching pursuit with quantized gains. Unlike
    `ProjectedQuantizer` the coefficient of a code does not depend on how long the code happens to be, so it cannot run
    away. The product is signed: with float gains, where ||r - g_k c_k||^2 = ||r||^2 - g_k^2, no direction comes closer
    to r at a gain of 0 or more, but one that points the other way may, at a negative gain. With levels the direction is
    chosen first and its level second, so another pair may come closer; the choice by rate compares all pairs.

    The directions start from data and follow it by moving averages, and dead ones restart from encoder outputs (see
    `Directions`); the levels follow the gains (see `GainLevels`).

    Loss, a mean over elements: commitment beta ||z - sg[z_hat]||^2.
    Gradient: straight-through, d z_hat / d z = I, or rotated.
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, S, h, w) int64; gains (B, S, h, w) int64 levels, or float32 where
    L is None.
    Rate: S (log2 K + log2 L) bits per position before entropy coding; S (log2 K + 32) where L is None.
    Sources: Gersho and Gray 1992, "Vector Quantization and Signal Compression", section 12.10 (gain-shape);
    Mallat and Zhang 1993 (matching pursuit); Chou, Lookabaugh and Gray 1989 (entropy-constrained choice).

    Args:
        dim: D.
        codebook_size: K.
        levels: L, or None for float gains.
        stages: S.
        code_dim: dimension that is quantized, between two 1x1 convolutions; None quantizes all D.
        beta: weight of the commitment term.
        quantize_from: training steps with float gains before the levels are used; not with a rate weight.
        restart_every, decay: how the directions are kept, see `CodeVectors`.
        gradient: how the decoder's gradient passes the quantizer, copied or rotated from z_hat onto z (see `rotate`).
        normalize: scale z to unit power first (see `UnitPower`), and go with a `beta` of 0; z_hat has that scale too.
        rate_weight: lambda, in squared units of z a bit; with `normalize`, 0.07 is a good first value.
        channel_last, sync: see `Quantizer`.

    Raises:
        ConfigError: an option has no such value.
        ShapeError: z.shape[1] != D.
    """

    codebook_size: int

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        levels: int | None = 16,
        stages: int = 1,
        code_dim: int | None = None,
        beta: float = 0.25,
        quantize_from: int = 0,
        restart_every: int = 50,
        decay: float = 0.99,
        gradient: Literal["straight-through", "rotation"] = "straight-through",
        normalize: bool = False,
        rate_weight: float = 0.0,
        channel_last: bool = False,
        sync: bool = True,
    ) -> None:
        super().__init__(dim, code_dim, normalize, channel_last, sync)
        if gradient not in ("straight-through", "rotation"):
            raise ConfigError(f"gradient is {gradient!r}; use 'straight-through' or 'rotation'")
        check_count("stages", stages, 1, LARGEST_STAGES)
        if levels is not None:
            check_count("levels", levels, 2, LARGEST_LEVELS)
        check_weight("beta", beta)
        check_weight("rate_weight", rate_weight)
        check_count("quantize_from", quantize_from, 0, LARGEST_STEP)
        if rate_weight and levels is None:
            raise ConfigError(f"rate_weight is {rate_weight}, but float gains have no rate; give a number of levels")
        if rate_weight and quantize_from:
            raise ConfigError(
                f"quantize_from is {quantize_from} and rate_weight is {rate_weight}, but the choice by rate takes "
                "levels from its first step on; set one of them to 0"
            )
        self.codebook_size, self.levels, self.stages = codebook_size, levels, stages
        self.beta, self.quantize_from, self.gradient = beta, quantize_from, gradient
        self.rate_weight = rate_weight
        self.directions = Directions(codebook_size, self.code_dim, restart_every, decay)
        self.gain_levels = nn.ModuleList(GainLevels(levels, decay) for _ in range(stages) if levels)
        self.pair_shares = nn.ModuleList(
            PairShares(codebook_size, levels, decay) for _ in range(stages) if levels and rate_weight
        )

    def quantize(self, z: Tensor) -> Quantized:
        codes, gains, value = self._pursue(flatten(z.detach()))
        value = grid(value, z)
        losses = {"commitment": self.beta * mean_square(z, value)}
        z_hat = (straight_through if self.gradient == "straight-through" else rotate)(z, value)
        return Quantized(z_hat, Tokens(codes=grid(codes, z), gains=grid(gains, z)), losses)

    def read(self, tokens: Tokens) -> Tensor:
        assert tokens.codes is not None
        assert tokens.gains is not None
        z_hat = torch.zeros((), device=tokens.codes.device)
        for s in range(tokens.codes.shape[1]):  # the first stages alone give a coarser z_hat
            gains = tokens.gains[:, s]
            if self.levels:
                gains = self._levels_of(s)(gains)
            z_hat = z_hat + gains[..., None] * self.directions(tokens.codes[:, s])
        return z_hat.movedim(-1, 1)

    def space(self) -> TokenSpace:
        vectors, values = self.directions.weight, None
        if self.levels:
            values = torch.stack([self._levels_of(s).values for s in range(self.stages)])
        gain: Literal["levels", "float"] = "levels" if self.levels else "float"
        return TokenSpace(self.codebook_size, self.stages, gain, values, vectors)

    @torch.no_grad()
    def _pursue(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (N, S), gains or levels (N, S), and z_hat (N, D) of the rows of z (N, D)."""
        if self.training:
            self.directions.prepare(z)
        residuals, codes, gains = [z], [], []
        for s in range(self.stages):
            k, sent, value = self._choose(residuals[-1], s)
            codes.append(k)
            gains.append(sent)
            residuals.append(residuals[-1] - value[:, None] * self.directions(k))
        if self.training:
            self.directions.observe(torch.cat(residuals[:-1]), torch.cat(codes))
        return torch.stack(codes, 1), torch.stack(gains, 1), z - residuals[-1]

    def _choose(self, r: Tensor, stage: int) -> tuple[Tensor, Tensor, Tensor]:
        """The codes (N,) of the rows of r (N, D), what is sent of their gains, and the gains that it stands for."""
        if self.rate_weight and (not self.training or self._levels_of(stage).initialised):
            return self._choose_by_rate(r, stage)
        k = self.directions.search(r)
        g = (r * self.directions(k)).sum(1)
        if not self.levels:
            return k, g, g
        levels, values = self._levels_of(stage).assign(g)
        warming_up = self.training and int(self.directions.steps) < self.quantize_from
        return k, levels, g if warming_up else values

    def _choose_by_rate(self, r: Tensor, stage: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `_choose`, over all pairs of code and level, counting their bits."""
        levels, shares = self._levels_of(stage), self._shares_of(stage)
        if self.training and self.directions.restarted is not None:
            shares.restart(self.directions.restarted)
        vectors = (levels.values[:, None] * self.directions.weight[:, None]).flatten(0, 1)  # (K L, D)
        pairs = nearest_code(r, vectors, self.rate_weight * shares.bits().flatten())
        k, level = pairs // len(levels.values), pairs % len(levels.values)
        values = levels(level)
        if self.training:
            shares.observe(k, level)
            shares.reorder(levels.observe((r * self.directions(k)).sum(1), level))
        return k, level, values

    def _levels_of(self, stage: int) -> GainLevels:
        levels = self.gain_levels[stage]
        assert isinstance(levels, GainLevels)
        return levels

    def _shares_of(self, stage: int) -> PairShares:
        shares = self.pair_shares[stage]
        assert isinstance(shares, PairShares)
        return shares


def grid(rows: Tensor, like: Tensor) -> Tensor:
    """(B h w, C) to (B, C, h, w) of the batch and size of `like`."""
    return rows.view(like.shape[0], like.shape[2], like.shape[3], rows.shape[1]).movedim(-1, 1)
