"""A second network that tells reconstructions from images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ShapeError
from hybridvq.ranges import Range, check_count


class PatchDiscriminator(nn.Module):
    """-mean d(x_hat), where d says of each patch how much it looks like one of a real image.

        d(x): 4x4 convolutions of stride 2, `layers` of them, from 3 to `width`, 2 `width`, ... channels (8 `width` at
        most), then two of stride 1; group normalization but in the first and the last; leaky ReLU
        its own loss: (mean max(0, 1 - d(x)) + mean max(0, 1 + d(x_hat))) / 2

    Its weights learn at each step before it is asked, with an optimizer of their own, and are kept in the checkpoint
    alone. A decoder that never was near its images cannot be told from noise, so give it `start` steps first.

    Source: Isola et al. 2017, arXiv:1611.07004, section 3.2; hinge as in Esser et al. 2021, arXiv:2012.09841.

    Args:
        width: channels of the first layer, a multiple of 8.
        layers: convolutions of stride 2.
        start: steps after which it counts and learns.

    Raises:
        ConfigError: an argument is out of range.
    """

    steps: Tensor  # () int64, in which it has been trained

    def __init__(self, width: int = 64, layers: int = 3, start: int = 0) -> None:
        super().__init__()
        check_count("training.loss.discriminator.width", width, least=8)
        check_count("training.loss.discriminator.layers", layers, most=8)
        Range(0, 10**9).check("training.loss.discriminator.start", start)
        self.start = start
        widths = [width // 8 * 8 * min(2**i, 8) for i in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            convolution = nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=False)
            parts += [convolution, nn.GroupNorm(8, widths[i]), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.smallest = 3 * 2**layers
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return self.counts() * -self.judge(x_hat).mean()

    def opponent_loss(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """What its weights make small; called once in each step, which it counts."""
        self.steps += 1
        return self.counts() * (F.relu(1 - self.judge(x)).mean() + F.relu(1 + self.judge(x_hat)).mean()) / 2

    def judge(self, x: Tensor) -> Tensor:
        """d(x), one number for each patch.

        Raises:
            ShapeError: the images are smaller than a patch.
        """
        if (side := min(x.shape[2:])) < self.smallest:
            raise ShapeError(
                f"the discriminator needs images of {self.smallest} pixels per side and more, and these have {side}; "
                "set training.loss.discriminator.layers to a smaller number"
            )
        judged: Tensor = self.layers(x)
        return judged

    def counts(self) -> Tensor:
        """1 after `start` steps, 0 before."""
        return (self.steps > self.start).float()
