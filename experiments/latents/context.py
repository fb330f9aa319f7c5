"""What decoded neighbors say of coefficients on top of what is expected of them, with the model as it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq import Tokenizer
from hybridvq.codec.fit import descend
from hybridvq.data import Images
from hybridvq.data.images import random_crop
from hybridvq.devices import evaluating
from hybridvq.pixels import to_input
from hybridvq.quantizers import HybridQuantizer, Quantized
from hybridvq.quantizers.logistic import logistic_bits
from hybridvq.quantizers.structure import LOG_SCALE_RANGE

NEIGHBORS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # rows and columns away, decoded before
MARGIN = 2  # the furthest of them
WIDTH = 256
CROPS, CROP, LOG2_STEPS = 256, 256, (-1.7, 1.5)  # what it is fitted to: crops, their side, the steps drawn for them
FIT_STEPS, POSITIONS, LEARNING_RATE = 3000, 1024, 1e-3
CHUNK = 1 << 14  # positions that are counted together
PART = 16  # crops that are encoded together


class Context(nn.Module):
    """Corrections to mean and log scale of all channels of a position, from six neighbors, these two, and the step.

    Neighbors lie on earlier diagonals x + 2y, so that the positions of one can be decoded together.

    Args:
        spread: (D,), the unit of each channel.
        width: of the hidden layers.
    """

    spread: Tensor

    def __init__(self, spread: Tensor, width: int = WIDTH) -> None:
        super().__init__()
        dim = len(spread)
        self.register_buffer("spread", spread)
        last = nn.Linear(width, 2 * dim)
        for parameter in last.parameters():  # no correction, to begin with
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            nn.Linear(len(NEIGHBORS) * (dim + 1) + 2 * dim + 1, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(0.1),
            nn.Linear(width, width),
            nn.LeakyReLU(0.1),
            last,
        )

    def expected(self, near: Tensor, mean: Tensor, log_scale: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale (n, D) of n positions, of what is expected of them (n, D) and their neighbors (n, N)."""
        inputs = torch.cat([near, mean / self.spread, log_scale, step[:, None].log2()], 1)
        shift, stretch = self.layers(inputs).chunk(2, 1)
        return mean + shift * self.spread, (log_scale + stretch).clamp(*LOG_SCALE_RANGE)

    def framed(self, z_hat: Tensor) -> Tensor:
        """z_hat (B, D, h, w) in units of its spread, and whether there is a position; (B, h + 4, w + 4, D + 1)."""
        rows = z_hat.movedim(1, -1) / self.spread
        return F.pad(F.pad(rows, (0, 1), value=1.0), (0, 0, *[MARGIN] * 4))

    def at(self, image: Tensor, y: Tensor, x: Tensor, frame: Tensor) -> Tensor:
        """The neighbors (n, N) of positions (n,) of a `frame`."""
        return torch.cat([frame[image, y + MARGIN + dy, x + MARGIN + dx] for dy, dx in NEIGHBORS], 1)

    @torch.no_grad()
    def distributions(self, z_hat: Tensor, mean: Tensor, log_scale: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale (B, D, h, w) of each coefficient, given those decoded before it.

        Args:
            z_hat: (B, D, h, w), what is decoded.
            mean, log_scale: of the same shape, what is expected without neighbors.
            step: (B,).
        """
        frame, means, log_scales = self.framed(z_hat), torch.empty_like(z_hat), torch.empty_like(z_hat)
        places = torch.ones(len(z_hat), *z_hat.shape[2:], device=z_hat.device).nonzero()
        for image, y, x in (part.unbind(1) for part in places.split(CHUNK)):
            own = mean[image, :, y, x], log_scale[image, :, y, x]
            found = self.expected(self.at(image, y, x, frame), *own, step[image])
            means[image, :, y, x], log_scales[image, :, y, x] = found
        return means, log_scales

    def bits(self, quantized: Quantized, quantizer: HybridQuantizer) -> Tensor:
        """The bits (B,) of tokens, with their codes counted as without neighbors."""
        z_hat, step, guess = quantized.z_hat, quantized.tokens.step, self.guess(quantized, quantizer)
        steps = step[:, None, None, None]
        given = total(logistic_bits(z_hat, steps, *self.distributions(z_hat, *guess, step)))
        if quantized.tokens.codes is None:
            return given
        return given + quantized.rate.bits - total(logistic_bits(z_hat, steps, *guess))

    def guess(self, quantized: Quantized, quantizer: HybridQuantizer) -> tuple[Tensor, Tensor]:
        """Mean and log scale (B, D, h, w) without neighbors: from the codes, or 0 and the spread of each channel."""
        if quantized.tokens.codes is not None:
            return quantizer.predict(quantized.tokens)
        log_scale = self.spread.log()[:, None, None].expand_as(quantized.z_hat)
        return torch.zeros_like(log_scale), log_scale


def total(bits: Tensor) -> Tensor:
    return bits.sum((1, 2, 3))


def fit_context(tokenizer: Tokenizer, images: Images, seed: int, steps: int = FIT_STEPS) -> Context:
    """The context of a trained model, which stays as it is, fitted to crops of its training images."""
    quantizer, rng = tokenizer.quantizer, np.random.default_rng(seed)
    draw = torch.Generator().manual_seed(seed)
    with evaluating(tokenizer) as device, torch.no_grad():
        parts = [torch.stack([to_input(c, device) for c in part]) for part in in_parts(crops(images, rng), PART)]
        z = torch.cat([tokenizer.encoder(x).float() for x in parts])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            context = Context(z.std((0, 2, 3)).cpu() + 0.1).to(device)
        step = torch.empty(len(z)).uniform_(*LOG2_STEPS, generator=draw).exp2().to(device)
        made = [quantizer(*part) for part in zip(z.split(PART), step.split(PART), strict=True)]
        z_hat = torch.cat([quantized.z_hat for quantized in made])
        mean, log_scale = (torch.cat(part) for part in zip(*(context.guess(q, quantizer) for q in made), strict=True))
        frame, (count, _, height, width) = context.framed(z_hat), z_hat.shape

    def loss() -> Tensor:
        ranges = (count, height, width)
        image, y, x = (torch.randint(n, (POSITIONS,), generator=draw).to(device) for n in ranges)
        own = mean[image, :, y, x], log_scale[image, :, y, x]
        given = context.expected(context.at(image, y, x, frame), *own, step[image])
        return logistic_bits(z_hat[image, :, y, x], step[image, None], *given).sum(1).mean()

    descend(context, loss, steps, LEARNING_RATE)
    return context.eval()


def crops(images: Images, rng: np.random.Generator) -> list[np.ndarray]:
    """Random ones, all of one size: at most CROP, and as large as the smallest of the pictures drawn."""
    pictures = [images.pixels(int(i)) for i in rng.integers(len(images), size=CROPS)]
    side = min(CROP, *(min(picture.shape[:2]) for picture in pictures)) // images.size * images.size
    return [random_crop(picture, side, rng.random(3)).copy() for picture in pictures]


def in_parts(items: Sequence[np.ndarray], size: int) -> list[Sequence[np.ndarray]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def save_context(context: Context, path: Path) -> None:
    save_file(context.state_dict(), path)


def load_context(path: Path, device: torch.device) -> Context:
    state = load_file(path)
    context = Context(state["spread"], len(state["layers.0.bias"]))
    context.load_state_dict(state)
    return context.to(device).eval()
