"""The frequency latents: a code where it is common, something continuous where it is rare."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from hybridvq.distributed import all_reduce
from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import Quantized, Tokens, straight_through
from hybridvq.quantizers.projected import coefficient
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.vector import VectorQuantizer
from hybridvq.ranges import LARGEST_STEP, check_count, check_share


class FrequencyQuantizer(VectorQuantizer):
    r"""Keep the code of a position if it is among the S most frequent, stay continuous otherwise.

        M     = 1 where k is among the S most frequent codes, else 0
        z_hat = M e_k + (1-M) z                        rare="vector",    section 2.2
        z_hat = M e_k + (1-M) P(z, e_k)                rare="projected", section 3.2

    The frequencies are a running table, f <- d f + (1-d) n / sum(n) over training batches with d = `table_decay`; ties
    go to the lower index. For the first `warmup_steps` training steps, and for S = K always, this is exactly VQ-VAE.
    The table is part of the saved model, so which codes are frequent need not be transmitted.

    Losses: those of VQ-VAE, over all positions.
    Gradient: straight-through where the code is kept; the identity where z passes; where z is projected, that of
    `ProjectedQuantizer`.
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, 1, h, w) int64; vectors (B, D, h, w) or gains (B, 1, h, w) float32,
    zero where the code is kept.
    Rate: log2(K) bits per position, and 32 D (or 32) more at each rare one.
    Source: N. Vila, "VQ-VAE paper extension improving reconstruction error", sections 2.2 and 3.2.

    Args:
        frequent: S, from 0 to K.
        rare: what the other positions keep, their `vector` or its projection.
        warmup_steps: training steps before the table is used; the report took 5 of its 100 epochs.
        table_decay: d.
        others: as in `VectorQuantizer`.

    Raises:
        ConfigError: an option has no such value.
        ShapeError: z.shape[1] != D.
    """

    frequencies: Tensor  # (K,)

    def __init__(
        self,
        dim: int,
        frequent: int,
        rare: Literal["vector", "projected"] = "vector",
        warmup_steps: int = 150,
        table_decay: float = 0.99,
        codebook_size: int = 512,
        beta: float = 0.25,
        learn: Literal["gradient", "ema"] = "gradient",
        init: Literal["uniform", "kmeans"] = "kmeans",
        restart_every: int = 50,
        decay: float = 0.99,
        code_dim: int | None = None,
        normalize: bool = False,
        channel_last: bool = False,
        sync: bool = True,
    ) -> None:
        plain = (dim, codebook_size, beta, learn, init, restart_every, decay, code_dim, normalize)
        super().__init__(*plain, channel_last=channel_last, sync=sync)
        check_count("frequent", frequent, 0, codebook_size)
        check_count("warmup_steps", warmup_steps, 0, LARGEST_STEP)
        check_share("table_decay", table_decay)
        if rare not in ("vector", "projected"):
            raise ConfigError(f"rare is {rare!r}; use 'vector' or 'projected'")
        self.frequent, self.rare = frequent, rare
        self.warmup_steps, self.table_decay = warmup_steps, table_decay
        self.register_buffer("frequencies", torch.zeros(codebook_size))

    def quantize(self, z: Tensor) -> Quantized:
        codes, e, losses = self.lookup(z)
        if self.training:
            self._count(codes)
        q = straight_through(z, e)
        passed = ~self._is_frequent()[codes]  # (B, 1, h, w)
        if self.rare == "projected":
            a = coefficient(z, q)
            tokens = Tokens(codes=codes, gains=(a * passed).detach(), passed=passed)
            return Quantized(torch.where(passed, a * q, q), tokens, losses)
        tokens = Tokens(codes=codes, vectors=(z * passed).detach(), passed=passed)
        return Quantized(torch.where(passed, z, q), tokens, losses)

    def read(self, tokens: Tokens) -> Tensor:
        e = self.embed(tokens)
        assert tokens.passed is not None
        if tokens.gains is not None:
            return torch.where(tokens.passed, tokens.gains * e, e)
        assert tokens.vectors is not None
        return torch.where(tokens.passed, tokens.vectors, e)

    def space(self) -> TokenSpace:
        if self.rare == "projected":
            return replace(super().space(), passed=True, gain="float")
        return replace(super().space(), passed=True, floats=self.code_dim)

    @torch.no_grad()
    def _count(self, codes: Tensor) -> None:
        counts = all_reduce(torch.bincount(codes.flatten(), minlength=self.codebook_size).float())
        self.frequencies.lerp_(counts / counts.sum(), 1 - self.table_decay)

    def _is_frequent(self) -> Tensor:
        """(K,) bool; of codes as frequent as the last that is, the first ones are."""
        f = self.frequencies
        least = f.topk(self.frequent).values[-1] if self.frequent else f.new_tensor(torch.inf)
        above, tied = f > least, f == least
        mask = above | (tied & (tied.cumsum(0) <= self.frequent - above.sum()))
        return mask | (self.codebook.steps <= self.warmup_steps)
