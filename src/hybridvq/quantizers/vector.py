"""VQ-VAE's quantizer."""

from typing import Literal

from torch import Tensor

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import Quantized, Quantizer, Tokens, flatten, mean_square, straight_through
from hybridvq.quantizers.codebook import Codebook
from hybridvq.ranges import check_weight


class VectorQuantizer(Quantizer):
    r"""Replace each encoder vector by its nearest code.

        k     = argmin_j ||z - e_j||^2                 in {0, ..., K-1}
        z_hat = e_k

    Losses, means over elements: codebook ||sg[z] - e_k||^2 (none when the codes are moving averages) and
    commitment beta ||z - sg[e_k]||^2.
    Gradient: straight-through, d z_hat / d z = I.
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, 1, h, w) int64.
    Rate: log2(K) bits a position before entropy coding.
    Source: van den Oord, Vinyals, Kavukcuoglu 2017, arXiv:1711.00937, equation 3.

    Args:
        dim: D.
        codebook_size: K.
        beta: weight of the commitment term.
        learn, init, restart_every, decay: how the codes are kept, see `Codebook`. As published: `init="uniform"`,
            `restart_every=0`.
        code_dim: dimension of the code vectors, between two 1x1 convolutions; None for D.
        normalize, channel_last, sync: see `Quantizer`.

    Raises:
        ConfigError: an option has no such value.
        ShapeError: z.shape[1] != D.
    """

    codebook_size: int

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
        super().__init__(dim, code_dim, normalize, channel_last, sync)
        check_weight("beta", beta)
        self.codebook_size = codebook_size
        self.beta = beta
        self.codebook = Codebook(codebook_size, self.code_dim, learn, init, restart_every, decay)

    def moved(self) -> list[Tensor]:
        return [*super().moved(), self.codebook.weight]

    def quantize(self, z: Tensor) -> Quantized:
        codes, e, losses = self.lookup(z)
        return Quantized(straight_through(z, e), Tokens(codes=codes), losses)

    def read(self, tokens: Tokens) -> Tensor:
        return self.embed(tokens)

    def lookup(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Codes (B, 1, h, w), their vectors (B, D, h, w), and VQ-VAE's two losses."""
        batch, _, height, width = z.shape
        codes = self.codebook.assign(flatten(z)).view(batch, 1, height, width)
        e = self.embed(Tokens(codes=codes))
        losses = {"commitment": self.beta * mean_square(z, e.detach())}
        if self.codebook.learn == "gradient":
            losses["codebook"] = mean_square(e, z.detach())
        return codes, e, losses

    def embed(self, tokens: Tokens) -> Tensor:
        """The code vectors (B, D, h, w) of tokens with S = 1.

        Raises:
            ConfigError: the tokens hold no codes.
        """
        if tokens.codes is None:
            raise ConfigError("these tokens hold no codes; they were not made by a quantizer with a codebook")
        return self.codebook(tokens.codes[:, 0]).movedim(-1, 1)
