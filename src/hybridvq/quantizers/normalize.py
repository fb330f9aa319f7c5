"""The scale that a code space is given, so that nothing else has to hold it."""

import torch
from torch import Tensor, nn

from hybridvq.distributed import average

EPSILON = 1e-8
MOMENTUM = 0.1


class UnitPower(nn.Module):
    r"""Center each dimension, and scale all of them by one number to a mean square of 1.

        m_B = mean of z over batch and positions,   p_B = mean of (z - m_B)^2 over batch, positions and dimensions
        m, p  = running averages of these
        z'    = r (z - m_B) / sqrt(p_B) + d,        r = sqrt(p_B / p), d = (m_B - m) / sqrt(p) held constant

    What a quantizer adds is noise, and an encoder that nothing holds outgrows it. A commitment loss holds it by pulling
    z to its codes, at the price of the dimensions with the least variance, which fall silent one by one. Given unit
    power, dimensions compete for a share of it and none is pulled to zero, where BatchNorm would make all shares equal.

    The value is (z - m) / sqrt(p), in training as in evaluation, so that a batch brighter than others keeps its
    brightness; r and d only give the gradient of the batch's own statistics, which are over the positions of all
    processes.
    Shapes: z, z' (B, D, h, w).
    Source: Ioffe 2017, arXiv:1702.03275, algorithm 1, with r and d unbounded.
    """

    mean: Tensor  # (D,)
    power: Tensor  # ()
    initialised: Tensor  # () bool

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("power", torch.ones(()))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, z: Tensor) -> Tensor:
        if not self.training:
            return self._scaled(z, self.mean, self.power)
        positions = z.numel() // len(self.mean)
        mean = average(z.mean((0, 2, 3)), positions)
        power = average((z - mean[:, None, None]).square().mean(), positions)
        self._follow(mean.detach(), power.detach())
        scale = (self.power + EPSILON).rsqrt()
        r, d = (power.detach() + EPSILON).sqrt() * scale, (mean.detach() - self.mean) * scale
        return r * self._scaled(z, mean, power) + d[:, None, None]

    def _scaled(self, z: Tensor, mean: Tensor, power: Tensor) -> Tensor:
        return (z - mean[:, None, None]) * (power + EPSILON).rsqrt()

    @torch.no_grad()
    def _follow(self, mean: Tensor, power: Tensor) -> None:
        weight = torch.where(self.initialised, MOMENTUM, 1.0)
        self.mean.lerp_(mean, weight)
        self.power.lerp_(power, weight)
        self.initialised.fill_(True)
