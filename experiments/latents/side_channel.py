"""Rounded numbers in place of the hybrid quantizer's codes: a hyperprior of mean and scale."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hybridvq.quantizers import QUANTIZERS, HybridQuantizer, TokenSpace
from hybridvq.quantizers.gaussian import image_generators
from hybridvq.quantizers.logistic import LogisticMixture
from hybridvq.quantizers.structure import COARSER, StructureNetworks

UNITS = 4.0  # a number is what the encoder gives times this, so that its first values are not all rounded to 0
LEVELS, MIDDLE = 256, 128  # the values -128 to 127 are codes from 0 on
OTHER_STREAM = 1 << 40  # added to the step, so that this noise is not that of z


class SideChannel(StructureNetworks):
    """Networks with rounded numbers between them, each channel counted by a mixture of logistics.

    In training the decoder reads rounded numbers, with a straight-through gradient, and the bits are those of the
    numbers plus uniform noise as wide as a step.
    """

    steps: Tensor  # () int64, training steps seen

    def __init__(self, dim: int, width: int, numbers: int) -> None:
        super().__init__(dim, width, numbers)
        self.prior = LogisticMixture(numbers)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def reduce(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rounded = (UNITS * y).round().clamp(-MIDDLE, LEVELS - 1 - MIDDLE).detach()
        value = UNITS * y + self.noise(y) if self.training else rounded
        bits = self.prior.bits(value, torch.ones(1, 1, 1, 1, device=y.device)).sum((1, 2, 3))
        return rounded.long() + MIDDLE, rounded / UNITS, bits, torch.zeros((), device=y.device)

    def embed(self, codes: Tensor) -> Tensor:
        return (codes - MIDDLE).float() / UNITS

    def noise(self, y: Tensor) -> Tensor:
        """Noise from -1/2 to 1/2 in the shape of y (B, N, h, w), which follows from the training step."""
        noise = torch.empty_like(y)
        for row, generator in zip(noise, image_generators(int(self.steps) + OTHER_STREAM, y), strict=True):
            row.uniform_(-0.5, 0.5, generator=generator)
        self.steps += 1
        return noise


class SideChannelQuantizer(HybridQuantizer):
    """A `HybridQuantizer` whose codes are rounded numbers: the same networks, coefficients and schedule.

    Rate: as there, with -log2 of the numbers' own distribution, which has a gradient, in place of the codes' shares.
    Tokens: codes (B, N, h/4, w/4) int64, the numbers plus 128; coefficients and step as there.
    Source: Minnen, Balle, Toderici 2018, arXiv:1809.02736, without its context model.

    Args:
        dim: D.
        numbers: N, at each coarse position.
        width, aside_steps, step_range: see `HybridQuantizer`, whose defaults hold for all else.
    """

    def __init__(
        self,
        dim: int,
        numbers: int = 32,
        width: int = 96,
        aside_steps: int = 5000,
        step_range: Sequence[float] = (0.3, 2.8),
    ) -> None:
        super().__init__(dim, groups=0, aside_steps=aside_steps, step_range=step_range)
        self.structure = SideChannel(dim, width, numbers)
        self.stages = numbers

    def space(self) -> TokenSpace:
        size = LEVELS if self.uses_codes else 0
        return TokenSpace(size, self.stages, coefficients=self.dim, coarser=COARSER)


QUANTIZERS["side-channel"] = SideChannelQuantizer  # at import, so that saved models open
