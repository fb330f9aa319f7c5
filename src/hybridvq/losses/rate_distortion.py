"""Bits and errors together."""

from torch import Tensor, nn

from hybridvq.quantizers import Rate

BITS = ("rate", "aside")  # the parts that are no error of reconstruction


class RateDistortion(nn.Module):
    """The mean over images of w (lambda 255^2 MSE + bits per pixel), with the MSE on [0, 1], and the bits aside.

    The quantizer gives the weights w and lambda with its bits. Returns the parts of the sum: `reconstruction`, `rate`
    and `aside`.
    """

    reads_rate = True

    def forward(self, x_hat: Tensor, x: Tensor, rate: Rate) -> dict[str, Tensor]:
        pixels = x.shape[2] * x.shape[3]
        error = (x_hat - x).square().mean((1, 2, 3)) * 127.5**2
        return {
            "reconstruction": (rate.image_weight * rate.distortion_weight * error).mean(),
            "rate": (rate.image_weight * rate.bits).mean() / pixels,
            "aside": rate.aside_bits.mean() / pixels,
        }
