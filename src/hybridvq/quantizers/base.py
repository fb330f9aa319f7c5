"""What every quantizer shares: the token and result types, the search, the straight-through estimator.

z (B,D,h,w) ──► Quantizer ──► Quantized(z_hat, tokens, losses)
                                                │
                z_hat ◄── dequantize(tokens) ◄──┘       tokens are enough
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hybridvq.errors import ShapeError

SLAB_ELEMENTS = 2**19  # entries of the N x K score table held at once: 2 MiB of float32, about one L2 cache
FLOAT_BITS = 32


@dataclass(frozen=True)
class Tokens:
    """All that a decoder needs of an image, beside the model's weights.

    Attributes:
        codes: (B, S, h, w) int64, codebook indices; None where a model has no codebook.
        gains: (B, S, h, w) float32, the coefficient of each code; None where the code is used as it is.
        vectors: (B, D, h, w) float32, the encoder's own vectors; None where none is passed through.
        passed: (B, 1, h, w) bool, the positions whose floats (gains or vectors) are read; None means every
            position. It follows from `codes` and the model's frequency table, so it costs no bits.
    """

    codes: Tensor | None = None
    gains: Tensor | None = None
    vectors: Tensor | None = None
    passed: Tensor | None = None

    def float_bits(self) -> float:
        """Bits a position spends on floats: 32 per coefficient and 32 D per passed-through vector, averaged."""
        share = 1.0 if self.passed is None else self.passed.double().mean().item()
        floats = sum(t.shape[1] for t in (self.gains, self.vectors) if t is not None and t.is_floating_point())
        return FLOAT_BITS * floats * share

    @property
    def has_floats(self) -> bool:
        """Whether any position carries a number of unlimited precision."""
        return self.float_bits() > 0


@dataclass(frozen=True)
class Quantized:
    """The result of a quantizer.

    Attributes:
        z_hat: (B, D, h, w) float32, what the decoder reads; gradients flow through it to z.
        tokens: what `dequantize` needs to give the same z_hat.
        losses: the quantizer's terms of the training loss, weighted, each a mean over elements; their sum is
            added to the reconstruction loss.
    """

    z_hat: Tensor
    tokens: Tokens
    losses: dict[str, Tensor] = field(default_factory=dict)


class Quantizer(nn.Module, ABC):
    """A bottleneck between encoder and decoder.

    Runs in float32 whatever the precision around it: a nearest code found in bfloat16 is often another code,
    and a coefficient near 1 keeps two digits there.

    Raises:
        ShapeError: z is not (B, D, h, w) with D equal to `dim`.
    """

    dim: int
    codebook_size: int | None = None

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Quantized:
        """Quantize z (B, D, h, w)."""
        if z.ndim != 4 or z.shape[1] != self.dim:
            raise ShapeError(f"z has shape {tuple(z.shape)}; this quantizer takes (batch, {self.dim}, height, width)")
        with torch.autocast(z.device.type, enabled=False):
            return self.quantize(z.float())

    @abstractmethod
    def quantize(self, z: Tensor) -> Quantized:
        """Quantize z (B, D, h, w) float32; `forward` checks the shape and turns autocast off."""

    @abstractmethod
    def dequantize(self, tokens: Tokens) -> Tensor:
        """z_hat (B, D, h, w) float32 from tokens alone."""


def flatten(z: Tensor) -> Tensor:
    """(B, D, h, w) to (B h w, D), one row a position."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def nearest_code(z: Tensor, codes: Tensor) -> Tensor:
    """Exact nearest neighbours, argmin_j ||z_i - e_j||^2, without holding the N x K table.

    ||z||^2 is the same for every j and left out: argmin_j ||e_j||^2 / 2 - <z, e_j>, which also keeps the digits
    that subtracting two large norms would lose when the codes are short.

    Shapes: z (N, D), codes (K, D); returns (N,) int64. Ties go to the lowest index.
    """
    half_norms = codes.square().sum(1) / 2  # (K,)
    transposed = codes.t()
    rows = max(1, SLAB_ELEMENTS // codes.shape[0])
    slabs = [torch.addmm(half_norms, part, transposed, alpha=-1).argmin(1) for part in z.split(rows)]
    return torch.cat(slabs) if slabs else z.new_empty(0, dtype=torch.long)


def straight_through(z: Tensor, value: Tensor) -> Tensor:
    """`value` in the forward pass, the identity to z in the backward pass (arXiv:1711.00937, section 3.2).

    Written value + (z - sg[z]): the difference is exactly zero, where the usual z + sg[value - z] rounds short
    codes to the precision of z.
    """
    return value.detach() + (z - z.detach())
