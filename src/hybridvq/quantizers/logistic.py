"""What rounded numbers cost under logistic distributions, in a form that can be differentiated."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FASTER = 4.0  # the numbers of a mixture are kept so much smaller, so that Adam moves them that much faster


def logistic_bits(value: Tensor, step: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    r"""Bits of the bin of width `step` around `value`: -log2 [F((v - m + step/2) / s) - F((v - m - step/2) / s)].

    F is the logistic distribution function, s the exponential of `log_scale`. All tensors broadcast.
    """
    return log_mass(value, step, mean, log_scale) / -math.log(2)


def log_mass(value: Tensor, step: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    r"""The natural logarithm of the same mass.

    With F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)), which is exact and has a gradient however small the mass is: the
    difference itself would be 0 far from the mean.
    """
    scale = log_scale.exp()
    distance, half = (value - mean).abs(), step / 2
    inner, outer = F.logsigmoid((half - distance) / scale), F.logsigmoid((half + distance) / scale)
    return inner + outer + (-torch.expm1(-step / scale)).log()


class LogisticMixture(nn.Module):
    """A mixture of logistic distributions for each of `dim` channels, the same at every position."""

    def __init__(self, dim: int, components: int = 3) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(dim, components) * 0.2 / FASTER)
        self.log_scales = nn.Parameter(torch.linspace(-1, 1.5, components).repeat(dim, 1) / FASTER)
        self.weights = nn.Parameter(torch.zeros(dim, components))

    def bits(self, value: Tensor, step: Tensor) -> Tensor:
        """Bits of the bins of width `step` (B, 1, 1, 1) around `value` (B, dim, h, w), of the same shape."""
        means, log_scales = FASTER * self.means[:, None, None], FASTER * self.log_scales[:, None, None]
        shares = (FASTER * self.weights).log_softmax(-1)[:, None, None]
        logs = log_mass(value[..., None], step[..., None], means, log_scales)
        return (shares + logs).logsumexp(-1) / -math.log(2)
