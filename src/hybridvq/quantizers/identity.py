"""No bottleneck: the continuous upper bound."""

from torch import Tensor

from hybridvq.quantizers.base import Quantized, Quantizer, Tokens


class IdentityQuantizer(Quantizer):
    """Pass the encoder's vector on: z_hat = z.

    The autoencoder without a bottleneck, which bounds from above what any quantizer in its place can reach.

    Losses: none. Gradient: the identity.
    Shapes: z, z_hat, vectors (B, D, h, w) float32.
    Rate: 32 D bits per position.

    Raises:
        ShapeError: z.shape[1] != D.
    """

    def quantize(self, z: Tensor) -> Quantized:
        return Quantized(z, Tokens(vectors=z.detach()))

    def read(self, tokens: Tokens) -> Tensor:
        assert tokens.vectors is not None
        return tokens.vectors
