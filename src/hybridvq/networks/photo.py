"""The encoder and decoder of `photos`: a strong encoder, a light decoder, and a linear path beside each.

x (B,3,H,W) ──┬─► 5x5 s2 ► GDN ► 5x5 s2 ► GDN ► residual ► 5x5 s2 ─┬─► z (B,D,H/8,W/8)
              └─► 8x8 s8, the lowest DCT functions ────────────────┘

z_hat ──┬─► 3x3 ► shuffle x2 ► inverse GDN ► residual ► 3x3 ► shuffle x4 ─┬─► x_hat (B,3,H,W)
        └─► 1x1, the same functions ► shuffle x8 ─────────────────────────┘

What is not linear starts at zero, so that training begins with the discrete cosine transform.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError
from hybridvq.ranges import check_count

BLOCK = 8  # pixels per side that a position covers
UNITS = 4.0  # z is what the layers give times this: one unit is then one quantizer step at step 1
HALF = 0.5  # the layers see [-0.5, 0.5]
GAINS = (3.5, 2.1)  # of the DCT functions of luma and of chroma: about what rate and distortion make of them
YCBCR = ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))


class GDN(nn.Module):
    r"""Generalized divisive normalization, (B, dim, h, w) to the same.

        y_i = x_i / sqrt(|beta_i| + 0.001 + sum_j |gamma_ij| x_j^2)        inverse: times the root

    Source: Balle, Laparra, Simoncelli 2016, arXiv:1511.06281, equation 3, with exponents 2 and 1/2.
    """

    def __init__(self, dim: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.ones(dim))
        self.gamma = nn.Parameter(0.1 * torch.eye(dim) + 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        power = F.conv2d(x * x, self.gamma.abs()[:, :, None, None].to(x.dtype), self.beta.abs().to(x.dtype) + 1e-3)
        return x * (power.sqrt() if self.inverse else power.rsqrt())


class Residual(nn.Module):
    """x + f(x), with f: 3x3 conv, leaky ReLU, 3x3 conv that starts at zero. (B, dim, h, w) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.LeakyReLU(0.1), zero(nn.Conv2d(dim, dim, 3, padding=1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)

    @property
    def paths(self) -> list[nn.Module]:
        return [self.layers]


class Encoder(nn.Module):
    """Images (B, 3, 8h, 8w) in [-1, 1] to z (B, dim, h, w), in quantizer steps.

    Args:
        dim: D, at most 192.
        downsampling: 8; this network has no other.
        widths: channels after the first and the second convolution.

    Raises:
        ConfigError: an argument has no such value.
    """

    def __init__(self, dim: int, downsampling: int = BLOCK, widths: Sequence[int] = (64, 96)) -> None:
        super().__init__()
        check(dim, downsampling, widths, 2)
        first, second = widths
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            GDN(first),
            nn.Conv2d(first, second, 5, stride=2, padding=2),
            GDN(second),
            Residual(second),
            zero(nn.Conv2d(second, dim, 5, stride=2, padding=2)),
        )
        self.linear = nn.Conv2d(3, dim, BLOCK, stride=BLOCK, bias=False)
        self.linear.weight.data = dct(dim)[0]

    def forward(self, x: Tensor) -> Tensor:
        x = x * HALF
        return (self.layers(x) + self.linear(x)) * UNITS

    @property
    def paths(self) -> list[nn.Module]:
        return [self.layers, self.linear]


class Decoder(nn.Module):
    """z_hat (B, dim, h, w) to images (B, 3, 8h, 8w), in about 10,000 multiplications per pixel at width 64.

    In evaluation they are cut to [-1, 1].

    Args:
        dim, downsampling: as for `Encoder`.
        decoder_width: channels at half and a quarter of the sides.

    Raises:
        ConfigError: an argument has no such value.
    """

    def __init__(self, dim: int, downsampling: int = BLOCK, decoder_width: int = 64) -> None:
        super().__init__()
        check(dim, downsampling, [decoder_width], 1)
        w = decoder_width
        self.layers = nn.Sequential(
            nn.Conv2d(dim, 4 * w, 3, padding=1),
            nn.PixelShuffle(2),
            GDN(w, inverse=True),
            Residual(w),
            zero(nn.Conv2d(w, 48, 3, padding=1)),
            nn.PixelShuffle(4),
        )
        functions = nn.Conv2d(dim, 3 * BLOCK**2, 1)
        functions.weight.data = dct(dim)[1].permute(1, 2, 3, 0).reshape(-1, dim)[:, :, None, None].contiguous()
        nn.init.zeros_(functions.bias)  # type: ignore[arg-type]
        self.linear = nn.Sequential(functions, nn.PixelShuffle(BLOCK))

    def forward(self, z_hat: Tensor) -> Tensor:
        u = z_hat / UNITS
        x_hat = (self.layers(u) + self.linear(u)) / HALF
        return x_hat if self.training else x_hat.clamp(-1, 1)

    @property
    def paths(self) -> list[nn.Module]:
        return [self.layers, self.linear]


def check(dim: int, downsampling: int, widths: Sequence[int], count: int) -> None:
    """Raise ConfigError unless the network can be built."""
    if downsampling != BLOCK:
        raise ConfigError(f"downsampling is {downsampling}; the photo network has {BLOCK} alone")
    check_count("dim", dim, 1, 3 * BLOCK**2)
    if not isinstance(widths, Sequence) or len(widths) != count:
        raise ConfigError(f"the photo network's widths are {widths}; give {count} of them")
    for width in widths:
        check_count("a width of the photo network", width)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and biases of zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def dct(dim: int) -> tuple[Tensor, Tensor]:
    """Analysis and synthesis filters (dim, 3, 8, 8) of the `dim` lowest DCT functions of YCbCr.

    Lowest by u + v, that of chroma counted 2.5 times and half of one more. With all 192, synthesis inverts analysis.
    """
    n = BLOCK
    k, i = torch.arange(n, dtype=torch.double)[:, None], torch.arange(n, dtype=torch.double)
    basis = (math.pi * (2 * i + 1) * k / (2 * n)).cos() * (2 / n) ** 0.5  # (frequency, place)
    basis[0] /= 2**0.5
    to_ycc = torch.tensor(YCBCR, dtype=torch.double)
    to_rgb = to_ycc.inverse()
    order = sorted(
        ((u + v) * (2.5 if p else 1.0) + (0.5 if p else 0.0), p, u, v)
        for p in range(3)
        for u in range(n)
        for v in range(n)
    )
    analysis, synthesis = torch.empty(2, dim, 3, n, n, dtype=torch.double)
    for row, (_, p, u, v) in enumerate(order[:dim]):
        function, gain = torch.outer(basis[u], basis[v]), GAINS[min(p, 1)]
        analysis[row] = to_ycc[p][:, None, None] * function * gain
        synthesis[row] = to_rgb[:, p][:, None, None] * function / gain
    return analysis.float(), synthesis.float()
