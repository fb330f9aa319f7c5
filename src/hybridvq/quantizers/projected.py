"""The projected latent: a code and how far along it."""

from torch import Tensor

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import Quantized, Tokens, mean_square, straight_through
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
        a     = <z, e_k> / <e_k, e_k>                  one float a position
        z_hat = a e_k

    Losses, means over elements: codebook ||sg[z] - e_k||^2, commitment beta ||z - sg[e_k]||^2, projection
    ||z_hat - sg[e_k]||^2.
    Gradient: as in the published code, the projection is taken onto the straight-through code q, whose value is e_k
    and whose derivative with respect to z is I. So the decoder's gradient v reaches z through the coefficient and
    through the direction alike; where <e, e> is above its floor,

        (d z_hat / d z)^T v = <e,v> (z + (1 - 2a) e) / <e,e> + a v

    Shapes: z, z_hat (B, D, h, w) float32; codes (B, 1, h, w) int64; gains a (B, 1, h, w) float32.
    Rate: log2(K) + 32 bits a position before entropy coding.
    Source: N. Vila, "VQ-VAE paper extension improving reconstruction error", section 2.1.

    Takes the arguments of `VectorQuantizer`.

    Raises:
        ConfigError: an option has no such value.
        ShapeError: z.shape[1] != D.
    """

    def quantize(self, z: Tensor) -> Quantized:
        codes, e, losses = self.lookup(z)
        q = straight_through(z, e)
        a = coefficient(z, q)
        z_hat = a * q
        losses["projection"] = mean_square(z_hat, e.detach())
        return Quantized(z_hat, Tokens(codes=codes, gains=a.detach()), losses)

    def read(self, tokens: Tokens) -> Tensor:
        if tokens.gains is None:
            raise ConfigError("these tokens hold no gains; they were not made by a projected quantizer")
        return tokens.gains * self.embed(tokens)
