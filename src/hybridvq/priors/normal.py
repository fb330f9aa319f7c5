"""Logarithms of Gaussian densities and masses that hold in the tails."""

import math

import torch
from torch import Tensor

NARROW = 0.02  # deviations: below it, a mass is a density times a width rather than a difference
TINY = 1e-30  # keeps logarithms of empty intervals finite


def log_normal_density(x: Tensor) -> Tensor:
    """log phi(x) = -(x^2 + log 2 pi) / 2."""
    return -0.5 * (x.square() + math.log(2 * math.pi))


def log_normal_mass(lower: Tensor, upper: Tensor) -> Tensor:
    r"""log(Phi(upper) - Phi(lower)) for finite lower <= upper, and its gradient, to single precision everywhere.

    An interval around zero is a sum of two positive halves of erf. One on a side of zero, [a, b] after mirroring with
    0 <= a < b, is written with Mills' ratio M(x) = (1 - Phi(x)) / phi(x) = sqrt(pi/2) erfcx(x / sqrt 2), which neither
    under- nor overflows:

        Phi(b) - Phi(a) = phi(a) (M(a) - M(b) exp(-m w)),        m = (a + b) / 2,  w = b - a

    and where w is small and the difference would cancel, by integrating phi(a + t) with t^2 replaced by w t, up to
    a relative error of w^2 / 12:

        Phi(b) - Phi(a) ~ phi(a) (1 - exp(-m w)) / m exp(w^2 / 12)
    """
    around = (lower <= 0) & (upper >= 0)
    halves = (torch.erf(upper * math.sqrt(0.5)) - torch.erf(lower * math.sqrt(0.5))) / 2
    a, b = torch.minimum(lower.abs(), upper.abs()), torch.maximum(lower.abs(), upper.abs())
    w, m = (b - a).clamp(min=TINY), ((a + b) / 2).clamp(min=TINY)
    narrow = -torch.expm1(-m * w) / m * (w.clamp(max=NARROW).square() / 12).exp()
    wide = _mills(a) - _mills(b) * (-m * w).exp()
    aside = log_normal_density(a) + torch.where(w < NARROW, narrow, wide).clamp(min=TINY).log()
    return torch.where(around, halves.clamp(min=TINY).log(), aside)


def _mills(x: Tensor) -> Tensor:
    return math.sqrt(math.pi / 2) * torch.special.erfcx(x * math.sqrt(0.5))
