"""What every quantizer shares: the way in and out, the search, the straight-through estimator.

z (B,D,h,w) ──► Quantizer ──► Quantized(z_hat, tokens, losses)
                                                │
                z_hat ◄── dequantize(tokens) ◄──┘       tokens are enough
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError, DataError, ShapeError
from hybridvq.quantizers.normalize import UnitPower
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.tokens import Quantized, Tokens
from hybridvq.ranges import check_count

SLAB_ELEMENTS = 2**20  # entries of the N x K score table held at once: 4 MiB of float32, within a cache
BLOCK = 32  # scores whose minimum is taken before it is asked which of them it was


class Quantizer(nn.Module, ABC):
    """A bottleneck between encoder and decoder.

        z (B,D,h,w) ──► [1x1 conv to code_dim] ──► [unit power] ──► quantize ──► [1x1 conv back] ──► z_hat (B,D,h,w)

    The two convolutions are there only with a `code_dim`, the scaling (see `UnitPower`) only with `normalize`;
    everything said of z, z_hat, codes and losses in a quantizer then holds between them. Runs in float32 whatever the
    precision around it: a nearest code found in bfloat16 is often another code, and a coefficient near 1 keeps two
    digits there.

    Raises:
        ConfigError: dim or code_dim is below 1.
        ShapeError: z is not (B, D, h, w) with D equal to `dim`.
    """

    codebook_size: int | None = None  # K
    levels: int | None = None  # L, where gains are quantized
    stages: int = 1  # S
    per_position: bool = True  # whether the tokens of a position follow from its vector alone, and z_hat from them
    counts_bits: bool = False  # whether results have a `rate`, which the loss then must use
    __call__: Callable[..., Quantized]

    def __init__(self, dim: int, code_dim: int | None = None, normalize: bool = False) -> None:
        super().__init__()
        check_count("dim", dim)
        if code_dim is not None:
            check_count("code_dim", code_dim)
        self.dim, self.code_dim = dim, code_dim or dim
        self.to_code = nn.Conv2d(dim, code_dim, 1) if code_dim else nn.Identity()
        self.unit_power = UnitPower(self.code_dim) if normalize else nn.Identity()
        self.from_code = nn.Conv2d(code_dim, dim, 1) if code_dim else nn.Identity()

    def forward(self, z: Tensor, step: float | Tensor | None = None) -> Quantized:
        """Quantize z (B, D, h, w).

        Raises:
            ConfigError: a `step` is given, and this quantizer does not round to one.
            ShapeError: z has another shape.
            DataError: z holds NaN or infinity; not looked for in training mode, where the loss shows it.
        """
        self.check_shape(z)
        if step is not None:
            raise ConfigError(f"step is {step}, but {type(self).__name__} has no step to round to; leave it out")
        if not self.training and not torch.compiler.is_compiling() and not z.isfinite().all():
            raise DataError("z holds NaN or infinity, which have no nearest code; check the encoder and its images")
        with torch.autocast(z.device.type, enabled=False):
            z = self.in_code_space(z)
            inner = self.quantize(z)
            error = F.mse_loss(inner.z_hat.detach(), z.detach())
            z_hat, size = self.from_code(inner.z_hat), self.codebook_size
            return replace(inner, z_hat=z_hat, error=error, codebook_size=size)

    def check_shape(self, z: Tensor) -> None:
        """Raise ShapeError unless z is (B, D, h, w)."""
        if z.ndim != 4 or z.shape[1] != self.dim:
            shape = f"(batch, {self.dim}, height, width)"
            raise ShapeError(f"z has shape {tuple(z.shape)}; this quantizer takes {shape}")

    def in_code_space(self, z: Tensor) -> Tensor:
        """What is quantized of z (B, D, h, w): (B, code_dim, h, w) float32."""
        return self.unit_power(self.to_code(z.float()))

    def dequantize(self, tokens: Tokens) -> Tensor:
        """z_hat (B, D, h, w) float32 from tokens alone.

        Raises:
            ConfigError: the tokens were made by another kind of quantizer, or a code or level is out of range.
            ShapeError: the tokens have another shape. Codes and gains (B, h, w) will do where S is 1.
        """
        tokens = tokens.completed()
        if not torch.compiler.is_compiling():  # a graph cannot branch on what the tokens hold
            self.check(tokens)
        return self.from_code(self.read(tokens))

    def space(self) -> TokenSpace:
        """What the tokens are.

        Here a code at each position, read as a vector of its own, or `stages` of them; without a codebook, a vector. A
        quantizer whose positions take more, such as gains, overrides this.

        Raises:
            ConfigError: there are gains on levels, of which this does not know the values.
        """
        if self.levels:
            raise ConfigError(f"{type(self).__name__} has gains on levels; let its `space` say what they stand for")
        if not self.codebook_size:
            return TokenSpace(floats=self.code_dim)
        if self.stages > 1:
            return TokenSpace(self.codebook_size, self.stages)
        device = next(chain(self.parameters(), self.buffers(), [torch.empty(0)])).device
        with torch.no_grad():
            every = torch.arange(self.codebook_size, device=device).view(1, 1, 1, -1)
            return TokenSpace(self.codebook_size, vectors=self.read(Tokens(codes=every))[0, :, 0].t())

    def check(self, tokens: Tokens) -> None:
        """Raise unless these are tokens of this quantizer; see `TokenSpace.check`."""
        self.space().check(tokens)

    def extra_repr(self) -> str:
        """The numbers that say how large it is."""
        sizes = {"dim": self.dim, "code_dim": self.code_dim, "codebook_size": self.codebook_size}
        sizes |= {"levels": self.levels, "stages": self.stages}
        plain = {"code_dim": self.dim, "stages": 1}
        return ", ".join(f"{k}={v}" for k, v in sizes.items() if v is not None and v != plain.get(k))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    @abstractmethod
    def quantize(self, z: Tensor) -> Quantized:
        """Quantize z (B, code_dim, h, w) float32; `forward` checks the shape and turns autocast off."""

    @abstractmethod
    def read(self, tokens: Tokens) -> Tensor:
        """The quantized vectors (B, code_dim, h, w) float32 of tokens."""


def flatten(z: Tensor) -> Tensor:
    """(B, D, h, w) to (B h w, D), one row per position."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def nearest_code(z: Tensor, codes: Tensor, costs: Tensor | None = None) -> Tensor:
    """Exact nearest neighbours, argmin_j ||z_i - e_j||^2 (+ costs_j), without holding the N x K table.

    ||z||^2 is the same for every j and left out: argmin_j (||e_j||^2 + costs_j) / 2 - <z, e_j>, which also keeps the
    digits that subtracting two large norms would lose when the codes are short.

    Shapes: z (N, D), codes (K, D), costs (K,); returns (N,) int64. Ties go to the lowest index.
    """
    norms = codes.square().sum(1)  # (K,)
    half, transposed = (norms if costs is None else norms + costs) / 2, codes.t()
    return by_slabs(z, len(codes), lambda rows: torch.addmm(half, rows, transposed, alpha=-1))


def straight_through(z: Tensor, value: Tensor) -> Tensor:
    """`value` in the forward pass, the identity to z in the backward pass (arXiv:1711.00937, section 3.2).

    Written value + (z - sg[z]): the difference is exactly zero, where the usual z + sg[value - z] rounds short
    codes to the precision of z.
    """
    return value.detach() + (z - z.detach())


def nearest_direction(z: Tensor, directions: Tensor) -> Tensor:
    """Exact argmax_j <z_i, c_j>, without holding the N x K table.

    Shapes: z (N, D), directions (K, D); returns (N,) int64. Ties go to the lowest index.
    """
    opposite = -directions.t()
    return by_slabs(z, len(directions), lambda rows: rows @ opposite)


def by_slabs(z: Tensor, k: int, score: Callable[[Tensor], Tensor]) -> Tensor:
    """The index of the lowest score of each row of z (N, D), (N,) int64, holding at most SLAB_ELEMENTS scores at once.

    `score` gives the (n, k) scores of n rows. Ties go to the lowest index.
    """
    if torch.compiler.is_exporting():  # a graph for any number of rows cannot count its slabs
        return score(z).argmin(1)
    slabs = [lowest(score(rows)) for rows in z.split(max(1, SLAB_ELEMENTS // k))]
    return torch.cat(slabs) if slabs else z.new_empty(0, dtype=torch.long)


def lowest(scores: Tensor) -> Tensor:
    """argmin over each row of scores (n, k), (n,) int64; ties go to the lowest index.

    In two steps, the minimum of each block and then the place within the lowest block: on a CPU a minimum without its
    place is 15 times as fast, and `min` gives the place in less than half the time of argmin.
    """
    if scores.shape[1] % BLOCK:
        return scores.min(1).indices
    blocks = scores.unflatten(1, (-1, BLOCK))
    block = blocks.amin(2).min(1).indices
    within = blocks[torch.arange(len(scores), device=scores.device), block].min(1).indices
    return block * BLOCK + within


def rotate(z: Tensor, value: Tensor) -> Tensor:
    r"""`value` in the forward pass, a rotation and scaling of the gradient in the backward pass.

        value = lambda R z,  R the rotation of z / ||z|| onto value / ||value||,  lambda = ||value|| / ||z||,
        both held constant: (d out / d z)^T v = lambda R^T v

    Shapes: z, value (B, D, h, w), vectors along dimension 1.
    Source: Fifty et al. 2024, arXiv:2410.06424, section 4.2 (the Householder form, equation 4).
    """
    e, q = F.normalize(z.detach(), dim=1), F.normalize(value.detach(), dim=1)
    r = F.normalize(e + q, dim=1)
    scale = value.detach().norm(dim=1, keepdim=True) / z.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
    rotated = z - 2 * (r * z).sum(1, keepdim=True) * r + 2 * (e * z).sum(1, keepdim=True) * q
    return straight_through(scale * rotated, value)
