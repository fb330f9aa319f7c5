"""The projected latent: a code and how far along it."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from hybridvq.quantizers.base import Quantized, Tokens, mean_square, straight_through
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.vector import VectorQuantizer

EPSILON = 1e-6  # the least squared length of a code: one a thousandth long


def coefficient(z: Tensor, e: Tensor) -> Tensor:
    r"""a = <z, e> / max(<e, e>, epsilon), over channels: (B, D, h, w) twice to (B, 1, h, w).

    The floor keeps codes near zero harmless: by Cauchy-Schwarz ||a e|| <= ||z|| for every e, and
    |a| <= ||z|| / sqrt(epsilon).
    """
    return (z * e).sum(1, keepdim=True) / e.square().sum(1, keepdim=True).clamp(min=EPSILON)


class ProjectedQuantizer(VectorQuantizer):
    r"""Project each encoder vector onto its nearest code.

        k     = argmin_j ||z - e_j||^2                 in {0, ..., K-1}
        a     = <z, e_k> / <e_k, e_k>                  one float per position
        z_hat = a e_k

    Losses, means over elements: codebook ||sg[z] - e_k||^2, commitment beta ||z - sg[e_k]||^2, projection
    ||z_hat - sg[e_k]||^2.
    Gradient: as in the published code, the projection is taken onto the straight-through code q, whose value is e_k
    and whose derivative with respect to z is I. So the decoder's gradient v reaches z through the coefficient and
    through the direction alike; where <e, e> is above its floor,

        (d z_hat / d z)^T v = <e,v> (z + (1 - 2a) e) / <e,e> + a v

    Shapes: z, z_hat (B, D, h, w) float32; codes (B, 1, h, w) int64; gains a (B, 1, h, w) float32.
    Rate: log2(K) + 32 bits per position before entropy coding.
    Source: N. Vila, "VQ-VAE paper extension improving reconstruction error", section 2.1.

    Args: as in `VectorQuantizer`, which has a few more.

    Raises:
        ConfigError: an option has no such value.
        ShapeError: z.shape[1] != D.
    """

    def __init__(
        self,
        dim: int,
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

    def quantize(self, z: Tensor) -> Quantized:
        codes, e, losses = self.lookup(z)
        q = straight_through(z, e)
        a = coefficient(z, q)
        z_hat = a * q
        losses["projection"] = mean_square(z_hat, e.detach())
        return Quantized(z_hat, Tokens(codes=codes, gains=a.detach()), losses)

    def read(self, tokens: Tokens) -> Tensor:
        assert tokens.gains is not None
        return tokens.gains * self.embed(tokens)

    def space(self) -> TokenSpace:
        return replace(super().space(), gain="float")
