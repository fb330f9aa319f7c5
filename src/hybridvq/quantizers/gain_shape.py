"""Our hybrid: unit-norm directions, and a gain of a finite number of levels."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import Quantized, Quantizer, Tokens, flatten, rotate, straight_through
from hybridvq.quantizers.codebook import Directions, gather, total

MIN_SHARE = 1e-3  # of an even share: a level that fewer gains choose is dead


class GainLevels(nn.Module):
    r"""L scalar levels that follow the distribution of the gains: Lloyd's algorithm by moving averages.

        n_l <- d n_l + (1-d) #{i : level(g_i) = l},   s_l <- d s_l + (1-d) sum of those g_i,   level_l = s_l / n_l

    They start at the quantiles (l + 1/2) / L of the first training batch; a level that no gain chooses any more
    moves into the fullest cell. Sums are over all processes.

    Source: Lloyd 1982, "Least squares quantization in PCM", in one dimension, where the cells are intervals.
    """

    values: Tensor  # (L,) ascending
    counts: Tensor  # (L,)
    sums: Tensor  # (L,)
    initialised: Tensor  # () bool

    def __init__(self, levels: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("values", torch.linspace(0, 1, levels))
        self.register_buffer("counts", torch.ones(levels))
        self.register_buffer("sums", torch.linspace(0, 1, levels))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, levels: Tensor) -> Tensor:
        """The gains of `levels`, int64 to float32 of the same shape."""
        return self.values[levels]

    @torch.no_grad()
    def assign(self, gains: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest level of each gain, int64, and its value; in training, moves the levels afterwards."""
        if self.training and not self.initialised:
            self._start(gains)
        levels = torch.bucketize(gains, (self.values[1:] + self.values[:-1]) / 2)
        values = self(levels)
        if self.training:
            self._observe(gains, levels)
        return levels, values

    def _start(self, gains: Tensor) -> None:
        n, ordered = len(self.values), gather(gains).sort().values
        starts = ordered[((torch.arange(n, device=gains.device) + 0.5) / n * len(ordered)).long()]
        self._set(starts, torch.full_like(starts, len(ordered) / n))
        self.initialised.fill_(True)

    def _observe(self, gains: Tensor, levels: Tensor) -> None:
        counts = total(torch.bincount(levels, minlength=len(self.values)).to(gains.dtype))
        sums = total(torch.zeros_like(self.sums).index_add_(0, levels, gains))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        values, order = (self.sums / self.counts.clamp(min=1e-6)).sort()
        self._set(values, self.counts[order])
        self._revive()

    def _revive(self) -> None:
        """One dead level a step moves beside the fullest one and takes half of its share."""
        dead = self.counts < MIN_SHARE * self.counts.mean()
        if not dead.any():
            return
        values, counts = self.values.clone(), self.counts.clone()
        fullest, lost = int(counts.argmax()), int(dead.nonzero()[0])
        below, above = max(fullest - 1, 0), min(fullest + 1, len(values) - 1)
        width = (values[above] - values[below]) / 4
        counts[lost] = counts[fullest] = counts[fullest] / 2
        values[lost] = values[fullest] + width
        values[fullest] = values[fullest] - width
        values, order = values.sort()
        self._set(values, counts[order])

    def _set(self, values: Tensor, counts: Tensor) -> None:
        self.values.copy_(values)
        self.counts.copy_(counts)
        self.sums.copy_(values * counts)


class GainShapeQuantizer(Quantizer):
    r"""Write each encoder vector as a gain along one of K unit directions, S times over.

        r_0 = z
        k_s = argmax_j <r_s, c_j>                      ||c_j|| = 1, j in {0, ..., K-1}
        g_s = <r_s, c_{k_s}>
        r_{s+1} = r_s - Q(g_s) c_{k_s}                 Q: the nearest of L levels, or the identity
        z_hat = sum_s Q(g_s) c_{k_s}

    For S = 1 this is gain-shape vector quantization, for S > 1 matching pursuit with quantized gains. Unlike
    `ProjectedQuantizer` the coefficient of a code does not depend on how long the code happens to be, so it cannot run
    away, and the choice of the code minimises the error of what is sent: ||z - g_k c_k||^2 = ||z||^2 - g_k^2.

    The directions start from data and follow it by moving averages, and dead ones restart from encoder outputs (see
    `Directions`); the levels follow the gains (see `GainLevels`).

    Loss, a mean over elements: commitment beta ||z - sg[z_hat]||^2.
    Gradient: straight-through, d z_hat / d z = I, or rotated.
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, S, h, w) int64; gains (B, S, h, w) int64 levels, or float32 where
    L is None.
    Rate: S (log2 K + log2 L) bits a position before entropy coding; S (log2 K + 32) where L is None.
    Sources: Gersho and Gray 1992, "Vector Quantization and Signal Compression", section 12.10 (gain-shape);
    Mallat and Zhang 1993 (matching pursuit).

    Args:
        dim: D.
        codebook_size: K.
        levels: L, or None for float gains.
        stages: S.
        code_dim: dimension that is quantized, between two 1x1 convolutions; None quantizes all D.
        beta: weight of the commitment term.
        quantize_from: training steps with float gains before the levels are used.
        restart_every, decay: how the directions are kept, see `CodeVectors`.
        gradient: how the decoder's gradient passes the quantizer, copied or rotated from z_hat onto z (see `rotate`).

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
    ) -> None:
        super().__init__(dim, code_dim)
        if gradient not in ("straight-through", "rotation"):
            raise ConfigError(f"gradient is {gradient!r}; use 'straight-through' or 'rotation'")
        if stages < 1:
            raise ConfigError(f"stages is {stages}; a position needs at least 1 code")
        if levels is not None and levels < 2:
            raise ConfigError(f"levels is {levels}; use at least 2, or null for float gains")
        if beta < 0:
            raise ConfigError(f"beta is {beta}; the weight of the commitment term cannot be negative")
        self.codebook_size, self.levels, self.stages = codebook_size, levels, stages
        self.beta, self.quantize_from, self.gradient = beta, quantize_from, gradient
        self.directions = Directions(codebook_size, self.code_dim, restart_every, decay)
        self.gain_levels = nn.ModuleList(GainLevels(levels, decay) for _ in range(stages) if levels)

    def quantize(self, z: Tensor) -> Quantized:
        codes, gains, value = self._pursue(flatten(z.detach()))
        value = grid(value, z)
        losses = {"commitment": self.beta * F.mse_loss(z, value)}
        z_hat = (straight_through if self.gradient == "straight-through" else rotate)(z, value)
        return Quantized(z_hat, Tokens(codes=grid(codes, z), gains=grid(gains, z)), losses)

    def read(self, tokens: Tokens) -> Tensor:
        if tokens.codes is None or tokens.gains is None:
            raise ConfigError("these tokens lack codes or gains; they were not made by a gain-shape quantizer")
        z_hat = torch.zeros((), device=tokens.codes.device)
        for s in range(self.stages):
            gains = tokens.gains[:, s]
            if self.levels:
                gains = self._levels_of(s)(gains)
            z_hat = z_hat + gains[..., None] * self.directions(tokens.codes[:, s])
        return z_hat.movedim(-1, 1)

    @torch.no_grad()
    def _pursue(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (N, S), gains or levels (N, S), and z_hat (N, D) of the rows of z (N, D)."""
        if self.training:
            self.directions.prepare(z)
        residuals, codes, gains = [z], [], []
        for s in range(self.stages):
            k = self.directions.search(residuals[-1])
            c = self.directions(k)
            g = (residuals[-1] * c).sum(1)
            sent, value = self._quantize_gain(g, s)
            codes.append(k)
            gains.append(sent)
            residuals.append(residuals[-1] - value[:, None] * c)
        if self.training:
            self.directions.observe(torch.cat(residuals[:-1]), torch.cat(codes))
        return torch.stack(codes, 1), torch.stack(gains, 1), z - residuals[-1]

    def _quantize_gain(self, g: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """What is sent of the gains g (N,), and the value it stands for."""
        if not self.levels:
            return g, g
        levels, values = self._levels_of(stage).assign(g)
        warming_up = self.training and int(self.directions.steps) < self.quantize_from
        return levels, g if warming_up else values

    def _levels_of(self, stage: int) -> GainLevels:
        levels = self.gain_levels[stage]
        assert isinstance(levels, GainLevels)
        return levels


def grid(rows: Tensor, like: Tensor) -> Tensor:
    """(B h w, C) to (B, C, h, w) of the batch and size of `like`."""
    return rows.view(like.shape[0], like.shape[2], like.shape[3], -1).movedim(-1, 1)
