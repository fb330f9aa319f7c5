"""Other people's quantizers behind this project's interface, from vector-quantize-pytorch, to compare with.

    python -m experiments.rivals --config experiments/plans/rate-distortion.yaml --data PATH_OR_HUB_ID

is `hybridvq compare` with these quantizers known to it. They belong to the experiments: the package does not need them.
"""

import sys

from torch import Tensor
from vector_quantize_pytorch import LFQ, ResidualVQ

from hybridvq.cli import main
from hybridvq.errors import ConfigError
from hybridvq.quantizers import QUANTIZERS, Quantized, Quantizer, Tokens


def codes_of(tokens: Tokens) -> Tensor:
    if tokens.codes is None:
        raise ConfigError("these tokens hold no codes")
    return tokens.codes


class BinarySphericalQuantizer(Quantizer):
    """BSQ, arXiv:2406.07548: the signs of log2 K dimensions on the unit sphere, with its entropy loss.

    Rate: log2 K bits per position.
    """

    def __init__(self, dim: int, codebook_size: int, entropy_loss_weight: float = 0.1) -> None:
        super().__init__(dim)
        self.inner = LFQ(
            dim=dim,
            codebook_size=codebook_size,
            spherical=True,
            channel_first=True,
            entropy_loss_weight=entropy_loss_weight,
            frac_per_sample_entropy=0.125,  # the loss needs a table of samples by codes
        )
        self.codebook_size = codebook_size

    def quantize(self, z: Tensor) -> Quantized:
        z_hat, codes, loss = self.inner(z)
        return Quantized(z_hat, Tokens(codes=codes[:, None].long()), {"entropy": loss})

    def read(self, tokens: Tokens) -> Tensor:
        return self.inner.indices_to_codes(codes_of(tokens)[:, 0])


class ResidualVectorQuantizer(Quantizer):
    """RVQ, arXiv:2107.03312: S codebooks in turn, each on what the ones before left; k-means start, dead codes expire.

    Rate: S log2 K bits per position.
    """

    def __init__(self, dim: int, codebook_size: int, stages: int = 2, code_dim: int | None = None) -> None:
        super().__init__(dim, code_dim)
        self.codebook_size, self.stages = codebook_size, stages
        self.inner = ResidualVQ(
            dim=self.code_dim,
            num_quantizers=stages,
            codebook_size=codebook_size,
            kmeans_init=True,
            threshold_ema_dead_code=2,
            decay=0.99,
            commitment_weight=0.25,
        )

    def quantize(self, z: Tensor) -> Quantized:
        batch, _, height, width = z.shape
        z_hat, codes, losses = self.inner(z.flatten(2).mT)
        codes = codes.mT.reshape(batch, self.stages, height, width)
        return Quantized(z_hat.mT.reshape(z.shape), Tokens(codes=codes), {"commitment": losses.sum()})

    def read(self, tokens: Tokens) -> Tensor:
        codes = codes_of(tokens)
        z_hat: Tensor = self.inner.get_output_from_indices(codes.flatten(2).mT)
        return z_hat.mT.unflatten(2, codes.shape[2:])


# At import, so that the worker processes of a comparison know them too.
QUANTIZERS |= {"bsq": BinarySphericalQuantizer, "residual": ResidualVectorQuantizer}

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
