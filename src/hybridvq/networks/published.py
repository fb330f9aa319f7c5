"""The encoder and decoder of the published setting."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.distributed import average, in_several, rank_and_size
from hybridvq.errors import ConfigError


class BatchNorm2d(nn.BatchNorm2d):
    r"""PyTorch's batch normalization, over the batches of all processes together. (B, dim, h, w) to the same.

        m = mean of x,   v = mean of (x - m)^2,   y = w (x - m) / sqrt(v + epsilon) + b        a channel each

    In training m and v are those of the whole batch, of which every process holds an equal part, and gradients pass
    through them. In evaluation, and with one process, this is PyTorch's own to the bit; its SyncBatchNorm refuses
    tensors on a CPU. The mean is subtracted before squares are taken, and all is float32 whatever the precision around
    it, so that channels far from zero keep their digits.

    Attributes:
        settled: from 0 to 1, how much of m and v is the running averages' in training.
    """

    settled: float = 0.0

    def __init__(self, dim: int) -> None:
        super().__init__(dim)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and (in_several() or self.settled)):
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        values = x.float()
        mean = average(values.mean((0, 2, 3)))
        variance = average((values - mean[:, None, None]).square().mean((0, 2, 3)))
        m, v = mean.lerp(self.running_mean, self.settled), variance.lerp(self.running_var, self.settled)
        self._follow(mean, variance, values.numel() // len(mean) * rank_and_size()[1])
        scale = self.weight * (v + self.eps).rsqrt()
        return ((values - m[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Let the running statistics follow those of `count` values per channel, the variance without its bias."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class ResidualBlock(nn.Module):
    """x + f(x), with f: ReLU, 3x3 conv, BatchNorm, ReLU, 1x1 conv, BatchNorm. (B, dim, h, w) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 1),
            BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)

    @property
    def paths(self) -> list[nn.Module]:
        return [self.layers]


class TransposedConv2d(nn.ConvTranspose2d):
    """The 4x4 stride-2 transposed convolution, (B, dim_in, h, w) to (B, dim_out, 2h, 2w), with its bias added apart.

    On a CPU the bias gradient of PyTorch's own takes longer than the rest of its backward pass together.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        y = F.conv_transpose2d(x, self.weight, stride=2, padding=1)
        return y.add_(self.bias.to(y.dtype)[:, None, None])


class Encoder(nn.Module):
    """Images to one vector per position.

        x (B,3,H,W) ──► [4x4 stride-2 conv, BatchNorm, ReLU] ... 4x4 stride-2 conv ──► residual ──► residual ──► z
                        one strided convolution for each halving                          (B, dim, H/f, W/f)

    Source: the extension's report, after arXiv:1711.00937, section 4.1.

    Raises:
        ConfigError: `downsampling` f is not a power of two of at least 2.
    """

    def __init__(self, dim: int, downsampling: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(halvings(downsampling)):
            if i:
                layers += [BatchNorm2d(dim), nn.ReLU()]
            layers.append(nn.Conv2d(dim if i else 3, dim, 4, stride=2, padding=1))
        self.layers = nn.Sequential(*layers, ResidualBlock(dim), ResidualBlock(dim))
        self.apply(initialize)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    @property
    def paths(self) -> list[nn.Module]:
        return [self.layers]


class Decoder(nn.Module):
    """Vectors back to images in [-1, 1].

        z_hat ──► residual ──► residual ──► ReLU ──► [4x4 stride-2 transposed conv, BatchNorm, ReLU] ...
        (B, dim, h, w)                                   4x4 stride-2 transposed conv ──► tanh ──► x_hat (B,3,f h,f w)

    Raises:
        ConfigError: `downsampling` f is not a power of two of at least 2.
    """

    def __init__(self, dim: int, downsampling: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [ResidualBlock(dim), ResidualBlock(dim), nn.ReLU()]
        for _ in range(halvings(downsampling) - 1):
            layers += [TransposedConv2d(dim, dim), BatchNorm2d(dim), nn.ReLU()]
        self.layers = nn.Sequential(*layers, TransposedConv2d(dim, 3), nn.Tanh())
        self.apply(initialize)

    def forward(self, z_hat: Tensor) -> Tensor:
        return self.layers(z_hat)

    @property
    def paths(self) -> list[nn.Module]:
        return [self.layers]


def halvings(downsampling: int) -> int:
    """How often the sides are halved: log2 of `downsampling`.

    Raises:
        ConfigError: it is not a power of two of at least 2.
    """
    if downsampling < 2 or downsampling & (downsampling - 1):
        raise ConfigError(f"downsampling is {downsampling}; it must be a power of two of at least 2, such as 4 or 8")
    return downsampling.bit_length() - 1


def initialize(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, for every convolution."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)
