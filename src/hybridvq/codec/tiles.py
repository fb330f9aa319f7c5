"""Images of any size to tokens and back, a tile at a time: one grid, computed in pieces.

    pixels ──► tile and margin, in [-1, 1] ──► encoder ──► cut to the tile ──► quantizer ──► its place in the grid
    tokens ──► tile and margin ──► dequantize ──► decoder ──► cut to the tile ──► pixels

A network of convolutions sees a bounded neighbourhood. A tile that is computed from its own inputs and a margin as wide
as that neighbourhood gives, once the margin is cut off, what the whole image gives there; where the image ends, the
tile ends too and the network pads it as it pads the image. So there is no seam to hide: tokens and pixels are those of
the whole image, to the rounding of sums that are taken in another order.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hybridvq.errors import ConfigError
from hybridvq.evaluation import evaluating
from hybridvq.networks.photo import GDN
from hybridvq.quantizers import Tokens
from hybridvq.tokenizer import Tokenizer

TILE_PIXELS = 512  # a side; at width 256 and f = 4 a tile takes about 400 MB of activations

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.BatchNorm2d, nn.Identity, GDN)

Pixels = Image.Image | np.ndarray  # an RGB image, or (H, W, 3) uint8


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in positions: it gives start..stop and is computed from first..last."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """What is given, within what is computed."""
        return slice(self.start - self.first, self.stop - self.first)


def spans(length: int, tile: int, margin: int) -> list[Span]:
    """Tiles of at most `tile` positions that cover 0..length, each with up to `margin` more at either end."""
    starts = range(0, length, tile)
    stops = [min(start + tile, length) for start in starts]
    return [
        Span(start, stop, max(start - margin, 0), min(stop + margin, length))
        for start, stop in zip(starts, stops, strict=True)
    ]


def reach(network: nn.Module) -> int:
    """How many outputs at each end of an axis change when its inputs are cut there, beyond those cut.

    Raises:
        ConfigError: a layer is of a kind of which that is not known.
    """
    return spread(network, 0)


def spread(network: nn.Module, wrong: int) -> int:
    r"""How many outputs at each end of an axis are not to be trusted where so many inputs are `wrong`.

    After a layer with kernel k, stride s and padding p, of whose inputs the first w at an end are not to be trusted:

        convolution              ceil(max(w + p, w + k - s - p) / s)
        transposed convolution   s (w - 1) + k - p
        pixel shuffle by s       s w
        one value at a time      w

    Modules in `nn.Sequential` follow one another; those that a module names in `paths` read the same input, and the
    one that sees furthest counts.

    Raises:
        ConfigError: a layer is of another kind.
    """
    if isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward:
        for layer in network:
            wrong = spread(layer, wrong)
        return wrong
    if paths := getattr(network, "paths", None):
        return max(spread(path, wrong) for path in paths)
    if isinstance(network, nn.PixelShuffle):
        return wrong * network.upscale_factor
    if isinstance(network, nn.ConvTranspose2d | nn.Conv2d) and (axes := axes_of(network)):
        k, s, p = axes
        if isinstance(network, nn.ConvTranspose2d):
            return s * (wrong - 1) + k - p
        return math.ceil(max(wrong + p, wrong + k - s - p) / s)
    if isinstance(network, POINTWISE):
        return wrong
    raise ConfigError(
        f"images cannot be computed in tiles through {type(network).__name__}, whose receptive field is not known; use "
        "convolutions, pixel shuffles and activations, and name what a module adds up in its `paths`"
    )


def axes_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int, int] | None:
    """Kernel, stride and padding where they are those of both axes and all that counts; None otherwise."""
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    plain = layer.dilation == (1, 1) and not any(layer.output_padding) and layer.padding_mode == "zeros"
    if not plain or any(isinstance(size, str) or size[0] != size[1] for size in sizes):
        return None
    k, s, p = (int(size[0]) for size in sizes)
    return k, s, p


def reflected(length: int, multiple: int) -> np.ndarray:
    """The pixel that stands at each place of an axis once it is extended to a multiple of `multiple`.

    Beyond its end an axis is read backwards, and forwards again where it is shorter than what is missing.
    """
    return np.pad(np.arange(length), (0, -length % multiple), mode="reflect")


def size_of(image: Pixels) -> tuple[int, int]:
    """Height and width."""
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[0], image.shape[1])


def grid_of(tokenizer: Tokenizer, height: int, width: int) -> tuple[int, int]:
    """The positions h, w of an image's grid."""
    f = tokenizer.downsampling
    return math.ceil(height / f), math.ceil(width / f)


def cut(image: Pixels, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """The pixels of a box, (bottom - top, right - left, 3) uint8."""
    if isinstance(image, Image.Image):
        return np.asarray(image.crop((left, top, right, bottom)))
    return image[top:bottom, left:right]


def gathered(image: Pixels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels at `rows` and `columns`, which are runs of neighbours, (len(rows), len(columns), 3) uint8."""
    top, left = int(rows.min()), int(columns.min())
    box = cut(image, top, left, int(rows.max()) + 1, int(columns.max()) + 1)
    return box[np.ix_(rows - top, columns - left)]


@torch.inference_mode()
def encode(
    tokenizer: Tokenizer,
    image: Pixels,
    choose: Callable[[Tensor], Tokens] | None = None,
    tile_pixels: int = TILE_PIXELS,
) -> Tokens:
    """The tokens of an image of any size, (1, S, h, w) on the CPU, with h and w the sides over f, rounded up.

    Sides that are not multiples of f are extended by reflection.

    Args:
        tokenizer: it gives codes, and gains on levels or none.
        choose: the tokens of encoder outputs (1, D, h, w); the quantizer's own if not given.
        tile_pixels: about how many pixels a side are computed at once.
    """
    f = tokenizer.downsampling
    rows, columns = (reflected(side, f) for side in size_of(image))
    grid = len(rows) // f, len(columns) // f
    margin, tile = reach(tokenizer.encoder), max(1, tile_pixels // f)
    choose = choose or (lambda z: tokenizer.quantizer(z).tokens)
    codes: Tensor | None = None
    gains: Tensor | None = None
    with evaluating(tokenizer) as device:
        for y in spans(grid[0], tile, margin):
            for x in spans(grid[1], tile, margin):
                pixels = gathered(image, rows[y.first * f : y.last * f], columns[x.first * f : x.last * f])
                z = tokenizer.encoder(to_input(pixels, device))[..., y.kept, x.kept]
                part = choose(z)
                assert part.codes is not None
                if codes is None:
                    codes = torch.empty(*part.codes.shape[:2], *grid, dtype=torch.long)
                    gains = None if part.gains is None else torch.empty_like(codes)
                place = (..., slice(y.start, y.stop), slice(x.start, x.stop))
                codes[place] = part.codes.cpu()
                if gains is not None and part.gains is not None:
                    gains[place] = part.gains.cpu()
    return Tokens(codes=codes, gains=gains)


@torch.inference_mode()
def decode(
    tokenizer: Tokenizer, tokens: Tokens, height: int, width: int, tile_pixels: int = TILE_PIXELS
) -> Iterator[tuple[int, int, Tensor]]:
    """The image of tokens (1, S, h, w) in pieces: the top, the left, and x_hat (1, 3, ., .) in [-1, 1] of each.

    Together they cover height x width, from which the padding of `encode` has been cut.
    """
    f, codes = tokenizer.downsampling, tokens.codes
    assert codes is not None
    margin, tile = math.ceil(reach(tokenizer.decoder) / f), max(1, tile_pixels // f)
    with evaluating(tokenizer) as device:
        for y in spans(codes.shape[2], tile, margin):
            for x in spans(codes.shape[3], tile, margin):
                part = (..., slice(y.first, y.last), slice(x.first, x.last))
                gains = None if tokens.gains is None else tokens.gains[part].to(device)
                x_hat = tokenizer.decode(Tokens(codes[part].to(device), gains)).float()
                top, left = y.start * f, x.start * f
                bottom, right = min(y.stop * f, height), min(x.stop * f, width)
                skip_y, skip_x = top - y.first * f, left - x.first * f
                yield top, left, x_hat[..., skip_y : skip_y + bottom - top, skip_x : skip_x + right - left]


def to_input(pixels: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).to(device).movedim(-1, 0)[None].float() / 127.5 - 1
