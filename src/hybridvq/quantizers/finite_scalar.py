"""Finite scalar quantization: a few numbers, each rounded to levels of its own."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import Quantizer, flatten, nearest_code, straight_through
from hybridvq.quantizers.levels import PairShares
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.tokens import Quantized, Tokens
from hybridvq.ranges import check_count, check_share, check_weight

MARGIN = 1e-3  # by which tanh reaches beyond the outermost levels


class FiniteScalarQuantizer(Quantizer):
    r"""Round each of n bounded numbers to one of L_i levels.

        b_i   = (1 + 10^-3) (L_i - 1) / 2 tanh(z_i + t_i) - o_i        o_i = 1/2 for an even L_i, else 0
        l_i   = round(b_i) + floor(L_i / 2)                            in {0, ..., L_i - 1}
        z_hat = round(b_i) / floor(L_i / 2)                            from -1 to 1, with 0 among the levels
        k     = sum_i l_i L_1 ... L_{i-1}                              in {0, ..., K - 1},  K = L_1 ... L_n

    t_i makes b_i 0 where z_i is 0. There are no code vectors to learn, so none can die.

    With a rate weight lambda > 0, a code is chosen by what it costs as well as by what it misses. With c_j the z_hat of
    code j, and r_j = -log2 of its running share of positions,

        k     = argmin_j sum_i (b_i / floor(L_i / 2) - c_{ji})^2 + lambda r_j

    Losses: none. Gradient: straight-through to b_i / floor(L_i / 2).
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, 1, h, w) int64.
    Rate: log2(K) bits per position before entropy coding.
    Sources: Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A.1; for the choice by rate Chou,
    Lookabaugh and Gray 1989.

    Args:
        dim: D. Where it is not n, a 1x1 convolution leads to n numbers, and another one back.
        grid: L_1, ..., L_n.
        rate_weight: lambda, in squared units of z_hat between the convolutions.
        decay: of the shares.

    Raises:
        ConfigError: grid is empty, one of its numbers is below 3, or K is too large.
        ShapeError: z.shape[1] != D.
    """

    codebook_size: int
    vectors: Tensor  # (K, n)
    sizes: Tensor  # (n, 1, 1) int64: L
    strides: Tensor  # (n, 1, 1) int64: the products of the L before

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] = (8, 5, 5, 5),
        rate_weight: float = 0.0,
        decay: float = 0.99,
        channel_last: bool = False,
    ) -> None:
        if not grid:
            raise ConfigError(f"grid is {list(grid)}; give each number its levels, such as [8, 5, 5, 5]")
        for i, size in enumerate(grid):
            check_count(f"grid[{i}]", size, 3)
        check_count("the product of grid", math.prod(grid))
        check_weight("rate_weight", rate_weight)
        check_share("decay", decay)
        super().__init__(dim, None if len(grid) == dim else len(grid), channel_last=channel_last)
        self.codebook_size = math.prod(grid)
        sizes = torch.tensor(grid)
        strides = sizes.cumprod(0) // sizes
        self.register_buffer("sizes", sizes[:, None, None], persistent=False)
        self.register_buffer("strides", strides[:, None, None], persistent=False)
        levels = torch.arange(self.codebook_size)[:, None] // strides % sizes
        self.register_buffer("vectors", (levels - sizes // 2) / (sizes // 2), persistent=False)
        self.rate_weight = rate_weight
        self.shares = PairShares(self.codebook_size, 1, decay) if rate_weight else None

    def extra_repr(self) -> str:
        return f"dim={self.dim}, grid={self.sizes.flatten().tolist()}"

    def in_code_space(self, z: Tensor) -> Tensor:
        z = super().in_code_space(z)
        reach = (self.sizes - 1) * (1 + MARGIN) / 2
        offset = (self.sizes % 2 == 0) / 2
        return ((z + (offset / reach).atanh()).tanh() * reach - offset) / (self.sizes // 2)

    def quantize(self, z: Tensor) -> Quantized:
        if self.shares:
            tokens = Tokens(codes=self.choose_by_rate(z.detach(), self.shares))
            return Quantized(straight_through(z, self.read(tokens)), tokens)
        half = self.sizes // 2
        rounded = (z.detach() * half).round()
        codes = ((rounded.long() + half) * self.strides).sum(1, keepdim=True)
        return Quantized(straight_through(z, rounded / half), Tokens(codes=codes))

    def choose_by_rate(self, z: Tensor, shares: PairShares) -> Tensor:
        """The codes (B, 1, h, w) of bounded numbers z (B, n, h, w); in training, their shares follow."""
        codes = nearest_code(flatten(z), self.vectors, self.rate_weight * shares.bits()[:, 0])
        if self.training:
            shares.observe(codes)
        return codes.view(len(z), 1, *z.shape[2:])

    def read(self, tokens: Tokens) -> Tensor:
        assert tokens.codes is not None
        return F.embedding(tokens.codes[:, 0], self.vectors).movedim(-1, 1)

    def space(self) -> TokenSpace:
        return TokenSpace(self.codebook_size, vectors=self.vectors)
