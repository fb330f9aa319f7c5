"""What every quantizer shares: the way in and out, the search, the straight-through estimator.

z (B,D,h,w) ──► Quantizer ──► Quantized(z_hat, tokens, losses)
                                                │
                z_hat ◄── dequantize(tokens) ◄──┘       tokens are enough
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.devices import evaluating
from hybridvq.distributed import all_counts, alone
from hybridvq.errors import ConfigError, DataError, ShapeError
from hybridvq.quantizers.layout import Layout
from hybridvq.quantizers.normalize import UnitPower
from hybridvq.quantizers.replay import Replay
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.tokens import Quantized, Tokens
from hybridvq.ranges import check_count

SLAB_ELEMENTS = 2**20  # entries of the N x K score table held at once: 4 MiB of float32, within a cache
BLOCK = 32  # scores whose minimum is taken before it is asked which of them it was


class Quantizer(nn.Module, ABC):
    """A bottleneck between encoder and decoder.

        z (B,D,h,w) ──► [1x1 conv to code_dim] ──► [unit power] ──► quantize ──► [1x1 conv back] ──► z_hat (B,D,h,w)

    The two convolutions are there only with a `code_dim`, the scaling (see `UnitPower`) only with `normalize`;
    everything said of z, z_hat, codes and losses in a quantizer then holds between them.

    Layout: what is said of h, w holds of any positions, z (B, D, ...), also of none, z (B, D). z_hat has the shape of
    z, and tokens have the positions of z behind (B, S). With `channel_last`, z and z_hat are (B, ..., D), and tokens
    stay (B, S, ...).

    Precision: parameters, statistics and all that is computed are float32 whatever the model around is cast to: a
    nearest code found in bfloat16 is often another code, and a coefficient near 1 keeps two digits there. z_hat has the
    type of z, or float32 under autocast; `dequantize` gives the type that the module was cast to.

    Frozen, or without a single position in any process, it computes as in evaluation, in `train()` too.

    Args:
        dim: D.
        code_dim, normalize: see above.
        channel_last: whether z and z_hat are (B, ..., D).
        sync: whether processes share their statistics; without, each keeps codes of its own.

    Raises:
        ConfigError: dim or code_dim is below 1.
        ShapeError: z is not (B, D, ...) with D equal to `dim`.
    """

    codebook_size: int | None = None  # K
    levels: int | None = None  # L, where gains are quantized
    stages: int = 1  # S
    per_position: bool = True  # whether the tokens of a position follow from its vector alone, and z_hat from them
    rate_weight: float = 0.0  # what a bit is worth where tokens are chosen, in squared units of what is quantized
    counts_bits: bool = False  # whether results have a `rate`, which the loss then must use
    takes_maps_only: bool = False  # whether z must be (B, D, h, w), without a mask
    dtype: torch.dtype = torch.float32  # of what `dequantize` gives
    held: bool = False  # by `freeze`
    __call__: Callable[..., Quantized]

    def __init__(
        self,
        dim: int,
        code_dim: int | None = None,
        normalize: bool = False,
        channel_last: bool = False,
        sync: bool = True,
    ) -> None:
        super().__init__()
        check_count("dim", dim)
        if code_dim is not None:
            check_count("code_dim", code_dim)
        self.dim, self.code_dim = dim, code_dim or dim
        self.channel_last, self.sync = channel_last, sync
        self.to_code = nn.Conv2d(dim, code_dim, 1) if code_dim else nn.Identity()
        self.unit_power = UnitPower(self.code_dim) if normalize else nn.Identity()
        self.from_code = nn.Conv2d(code_dim, dim, 1) if code_dim else nn.Identity()
        self.replay = Replay()

    def forward(self, z: Tensor, step: float | Tensor | None = None, mask: Tensor | None = None) -> Quantized:
        """Quantize z (B, D, ...), or (B, ..., D) with `channel_last`.

        Args:
            z: the vectors.
            step: what a `HybridQuantizer` rounds to; no other takes one.
            mask: (B, ...) bool, the valid positions. The others are in no count, average or loss; their z_hat is 0 and
                so are their tokens, which `dequantize` reads as 0 given the same mask.

        Raises:
            ConfigError: a `step` or a mask is given, and this quantizer takes none.
            ShapeError: z or the mask has another shape.
            DataError: z holds NaN or infinity; not looked for in training mode, where the loss shows it.
        """
        self.check_shape(z, mask)
        if step is not None:
            raise ConfigError(f"step is {step}, but {type(self).__name__} has no step to round to; leave it out")
        z = z.movedim(-1, 1) if self.channel_last else z
        layout = Layout.of(z, mask)
        z = layout.fold(z)
        if not self.training and not torch.compiler.is_compiling() and not z.isfinite().all():
            raise DataError("z holds NaN or infinity, which have no nearest code; check the encoder and its images")
        result = self.run(self._quantize_map, z)
        z_hat = layout.unfold(result.z_hat)
        z_hat = z_hat.movedim(1, -1) if self.channel_last else z_hat
        tokens = result.tokens.map(layout.unfold)
        return replace(result, z_hat=z_hat, tokens=tokens, codebook_size=self.codebook_size)

    def run(self, compute: Callable[[Tensor], Quantized], z: Tensor) -> Quantized:
        """`compute` of z (B, D, h, w), in float32 and as one training step if it is one."""
        kind = torch.float32 if torch.is_autocast_enabled(z.device.type) else z.dtype
        with torch.autocast(z.device.type, enabled=False):
            result = self._train_on(compute, z) if self.training else compute(z)
        return replace(result, z_hat=result.z_hat.to(kind))

    def _train_on(self, compute: Callable[[Tensor], Quantized], z: Tensor) -> Quantized:
        with nullcontext() if self.sync else alone():
            if not self.frozen and any(all_counts(z.numel(), z.device)):
                return self.replay.step(compute, z, self.moved())
        with evaluating(self):
            return compute(z)

    def _quantize_map(self, z: Tensor) -> Quantized:
        z = self.in_code_space(z)
        inner = self.quantize(z)
        error = mean_square(inner.z_hat.detach(), z.detach())
        return replace(inner, z_hat=self.from_code(inner.z_hat), error=error)

    def moved(self) -> list[Tensor]:
        """The tensors that a training step moves, beside what an optimizer does."""
        return list(self.buffers())

    @property
    def frozen(self) -> bool:
        """Whether `freeze` was called, or every parameter is one that needs no gradient."""
        needs = [parameter.requires_grad for parameter in self.parameters()]
        return self.held or bool(needs and not any(needs))

    def freeze(self) -> "Quantizer":
        """Let codes, levels, shares and unit power stand still, in `train()` too; as `requires_grad_(False)` does.

        A model around it that is told `requires_grad_(False)` reaches only quantizers with parameters.
        """
        return self.requires_grad_(False)

    def unfreeze(self) -> "Quantizer":
        """Let all of it learn again."""
        return self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> "Quantizer":
        super().requires_grad_(requires_grad)
        self.held = not requires_grad
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Quantizer":
        """Move to another device, and stay float32."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self.dtype = fn(torch.zeros(1, dtype=self.dtype)).dtype
        return super()._apply(move, recurse)

    def check_shape(self, z: Tensor, mask: Tensor | None = None) -> None:
        """Raise ShapeError unless z is (B, D, ...), or (B, ..., D) with `channel_last`."""
        self.check_mask(mask)
        wrong = self.takes_maps_only and z.ndim != 4
        if wrong or z.ndim < 2 or z.shape[-1 if self.channel_last else 1] != self.dim:
            shape = f"(batch, ..., {self.dim})" if self.channel_last else f"(batch, {self.dim}, ...)"
            shape = shape.replace("...", "height, width") if self.takes_maps_only else shape
            raise ShapeError(f"z has shape {tuple(z.shape)}; this quantizer takes {shape}")

    def check_mask(self, mask: Tensor | None) -> None:
        """Raise ConfigError if there is a mask and this quantizer takes none."""
        if mask is not None and self.takes_maps_only:
            raise ConfigError(f"{type(self).__name__} takes whole images, so it has no mask; leave it out")

    def in_code_space(self, z: Tensor) -> Tensor:
        """What is quantized of z (B, D, h, w): (B, code_dim, h, w) float32."""
        return self.unit_power(self.to_code(z.float()))

    def dequantize(self, tokens: Tokens, mask: Tensor | None = None) -> Tensor:
        """z_hat (B, D, ...), or (B, ..., D) with `channel_last`, from tokens alone; 0 outside a `mask` (B, ...).

        Raises:
            ConfigError: the tokens were made by another kind of quantizer, or a code or level is out of range.
            ShapeError: the tokens or the mask have another shape. Codes and gains (B, h, w) will do where S is 1.
        """
        self.check_mask(mask)
        tokens = tokens.completed(self.stages)
        layout = Layout.of(next(iter(tokens.parts.values()), torch.empty(0, 1, 1, 1)), mask)
        inner = tokens.map(layout.fold)
        if not torch.compiler.is_compiling():  # a graph cannot branch on what the tokens hold
            self.check(inner)
        z_hat = layout.unfold(self.from_code(self.read(inner)))
        return (z_hat.movedim(1, -1) if self.channel_last else z_hat).to(self.dtype)

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

    def draw_details(self, tokens: Tokens, temperature: float, generator: torch.Generator | None) -> Tokens | None:
        """The tokens with what codes leave open drawn from what they say of it; None where they leave nothing open."""
        return None

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


def mean(x: Tensor) -> Tensor:
    """The mean of x; 0 where it is empty."""
    return x.mean() if x.numel() else x.sum()


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """The mean of (a - b)^2; 0 where they are empty."""
    return F.mse_loss(a, b) if a.numel() else (a - b).sum()


def flatten(z: Tensor) -> Tensor:
    """(B, D, h, w) to (B h w, D), one row per position."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def nearest_code(z: Tensor, vectors: Tensor, costs: Tensor | None = None) -> Tensor:
    """Exact nearest neighbors, argmin_j ||z_i - e_j||^2 (+ costs_j), without holding the N x K table.

    ||z||^2 is the same for every j and left out: argmin_j (||e_j||^2 + costs_j) / 2 - <z, e_j>, which also keeps the
    digits that subtracting two large norms would lose when the vectors are short.

    Shapes: z (N, D), vectors e (K, D), costs (K,); returns (N,) int64. Ties go to the lowest index.
    """
    norms = vectors.square().sum(1)  # (K,)
    half, transposed = (norms if costs is None else norms + costs) / 2, vectors.t()
    return by_slabs(z, len(vectors), lambda rows: torch.addmm(half, rows, transposed, alpha=-1))


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
