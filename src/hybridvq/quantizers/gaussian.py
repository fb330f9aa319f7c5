"""The plain variational autoencoder's bottleneck."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hybridvq.distributed import all_counts, rank_and_size
from hybridvq.quantizers.base import Quantized, Quantizer, Tokens, mean
from hybridvq.ranges import check_weight

LOG_VARIANCE_RANGE = (-30.0, 20.0)  # exp() of anything outside says nothing more and can overflow


class GaussianQuantizer(Quantizer):
    r"""A diagonal Gaussian at each position, pulled towards N(0, I).

        mu, log s^2 = W z + b                          one 1x1 convolution, D to 2 D channels
        z_hat       = mu + s n,  n ~ N(0, I)           in training; mu in evaluation

    Loss: kl_weight * KL(N(mu, s^2) || N(0, 1)), a mean over elements, KL = (mu^2 + s^2 - 1 - log s^2) / 2 nats.
    Gradient: reparameterized. The noise of an image depends on the training step and on the image's place in the batch
    of all processes alone, so that a resumed run, or one on more devices, draws what an uninterrupted one would.
    Shapes: z, z_hat, vectors (B, D, h, w) float32.
    Rate: 32 D bits per position, as floats.
    Source: Kingma and Welling 2014, arXiv:1312.6114, section 2.4 and appendix B.

    Raises:
        ConfigError: kl_weight is negative, or no number up to 1e6.
        ShapeError: z.shape[1] != D.
    """

    steps: Tensor

    def __init__(self, dim: int, kl_weight: float = 1e-3, channel_last: bool = False, sync: bool = True) -> None:
        super().__init__(dim, channel_last=channel_last, sync=sync)
        check_weight("kl_weight", kl_weight)
        self.kl_weight = kl_weight
        self.moments = nn.Conv2d(dim, 2 * dim, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def quantize(self, z: Tensor) -> Quantized:
        mu, log_variance = self.moments(z).chunk(2, dim=1)
        log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)
        kl = mean(mu.square() + log_variance.exp() - 1 - log_variance) / 2
        z_hat = mu
        if self.training:
            z_hat = mu + (log_variance / 2).exp() * step_noise(int(self.steps), mu)
            self.steps += 1
        return Quantized(z_hat, Tokens(vectors=z_hat.detach()), {"kl": self.kl_weight * kl})

    def read(self, tokens: Tokens) -> Tensor:
        assert tokens.vectors is not None
        return tokens.vectors


def step_noise(step: int, like: Tensor) -> Tensor:
    """N(0, I) in the shape of this process's part of a batch, (B, ...), by `image_generators`."""
    noise = torch.empty(like.shape, device=like.device)
    for row, generator in zip(noise, image_generators(step, like), strict=True):
        row.normal_(generator=generator)
    return noise


def image_generators(step: int, like: Tensor) -> Iterator[torch.Generator]:
    """A generator for each image of this process's part of a batch (B, ...), whose seed is drawn from the step.

    It is one generator, seeded anew when the next image is asked for.
    """
    counts, rank = all_counts(len(like), like.device), rank_and_size()[0]
    seeds = torch.randint(2**32, (sum(counts),), generator=torch.Generator().manual_seed(step)).split(counts)[rank]
    generator = torch.Generator(device=like.device)
    for seed in seeds.tolist():
        yield generator.manual_seed(seed)
