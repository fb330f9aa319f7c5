"""Errors pixel by pixel, of x_hat and x (B, 3, H, W) in [-1, 1]."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.ranges import Range

TYPICAL, FLOOR = 0.02, 0.001  # MSE of images of 64x64 at 9 bits for 16 pixels; of one of 36 dB, where more is not seen


class MSE(nn.Module):
    """The mean of (x_hat - x)^2."""

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return F.mse_loss(x_hat, x)


class PSNR(nn.Module):
    """The mean over images of t log(MSE + e), with t = 0.02 and e = 0.001: minus PSNR, but for scale and e.

    Its gradient is that of the MSE times t / (MSE + e), so an image's error counts by its share of what is there.
    """

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return TYPICAL * ((x_hat - x).square().mean((1, 2, 3)) + FLOOR).log().mean()


class L1(nn.Module):
    """The mean of |x_hat - x|."""

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return F.l1_loss(x_hat, x)


class Charbonnier(nn.Module):
    """The mean of sqrt((x_hat - x)^2 + epsilon^2): as L1, but smooth at 0.

    Source: Charbonnier et al. 1994; Lai et al. 2017, arXiv:1704.03915, section 3.3.

    Raises:
        ConfigError: epsilon is not a positive number up to 2.
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        Range(0, 2, whole=False, positive=True).check("training.loss.charbonnier.epsilon", epsilon)
        self.epsilon = epsilon

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return torch.sqrt((x_hat - x).square() + self.epsilon**2).mean()
