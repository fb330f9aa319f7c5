"""Images of any size to tokens and back, a tile at a time: one grid, computed in pieces.

    pixels ──► tile and margin, in [-1, 1] ──► encoder ──► cut to the tile ──► quantizer ──► its place in the grid
    tokens ──► tile and margin ──► dequantize ──► decoder ──► cut to the tile ──► pixels

A network of convolutions sees a bounded neighborhood. A tile that is computed from its own inputs and a margin as wide
as that neighborhood gives, once the margin is cut off, what the whole image gives there; where the image ends, the
tile ends too and the network pads it as it pads the image. So there is no seam to hide: tokens and pixels are those of
the whole image, to the rounding of sums that are taken in another order.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hybridvq.devices import evaluating
from hybridvq.errors import ConfigError
from hybridvq.networks.photo import GDN
from hybridvq.pixels import Pixels, to_input, to_pixels
from hybridvq.quantizers import Quantizer, Tokens

TILE_PIXELS = 512  # a side; at width 256 and f = 4 a tile takes about 400 MB of activations

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.BatchNorm2d, nn.Identity, GDN)


class Parts(Protocol):
    """What is read of a `hybridvq.Tokenizer`."""

    encoder: nn.Module
    quantizer: Quantizer
    decoder: nn.Module
    downsampling: int


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


def reflect(length: int, multiple: int) -> np.ndarray:
    """The pixel that stands at each place of an axis once it is extended to a multiple of `multiple`.

    Beyond its end an axis is read backwards, and forwards again where it is shorter than what is missing.
    """
    return np.pad(np.arange(length), (0, -length % multiple), mode="reflect")


def size_of(image: Pixels) -> tuple[int, int]:
    """Height and width."""
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[0], image.shape[1])


def grid_of(tokenizer: Parts, height: int, width: int) -> tuple[int, int]:
    """The positions h, w of an image's grid."""
    f = tokenizer.downsampling
    return math.ceil(height / f), math.ceil(width / f)


def cut(image: Pixels, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """The pixels of a box, (bottom - top, right - left, 3)."""
    if isinstance(image, Image.Image):
        return np.asarray(image.crop((left, top, right, bottom)))
    return image[top:bottom, left:right]


def gathered(image: Pixels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels at `rows` and `columns`, which are runs of neighbors, (len(rows), len(columns), 3)."""
    top, left = int(rows.min()), int(columns.min())
    box = cut(image, top, left, int(rows.max()) + 1, int(columns.max()) + 1)
    return box[np.ix_(rows - top, columns - left)]


def batches(images: Sequence[Pixels]) -> Iterator[list[Pixels]]:
    """Neighbors of one size, together as long as they fill no more than a tile."""
    batch: list[Pixels] = []
    for image in images:
        height, width = size_of(image)
        full = (len(batch) + 1) * height * width > TILE_PIXELS**2
        if batch and (full or size_of(batch[0]) != (height, width)):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def tiling(tokenizer: Parts, network: nn.Module, grid: tuple[int, int], tile_pixels: int | None) -> tuple[int, int]:
    """The side of a tile and how far beyond it `network` sees, in its outputs.

    The whole grid is one tile where it is small, where the network has a layer of unknown reach, and where a position's
    tokens follow from more than its own vector.
    """
    tile, whole = max(1, (tile_pixels or TILE_PIXELS) // tokenizer.downsampling), (max(grid), 0)
    if max(grid) <= tile or not tokenizer.quantizer.per_position:
        return whole
    try:
        return tile, reach(network)
    except ConfigError:
        return whole


def latents(
    tokenizer: Parts, images: Sequence[Pixels], tile: int, margin: int, device: torch.device
) -> Iterator[tuple[Span, Span, Tensor]]:
    """The encoder's outputs (B, D, ., .) of images of one size, tile by tile, each with its place in the grid.

    Sides that are not multiples of f are extended by reflection.
    """
    f = tokenizer.downsampling
    rows, columns = (reflect(side, f) for side in size_of(images[0]))
    for y in spans(len(rows) // f, tile, margin):
        for x in spans(len(columns) // f, tile, margin):
            box = rows[y.first * f : y.last * f], columns[x.first * f : x.last * f]
            inputs = torch.stack([to_input(gathered(image, *box), device) for image in images])
            yield y, x, tokenizer.encoder(inputs)[..., y.kept, x.kept]


def shown(y: Span, x: Span, f: int, height: int, width: int) -> tuple[int, int, tuple[slice, slice]]:
    """The top and the left of a tile in an image, and where that part lies in what was decoded, from `first` on."""
    top, left = y.start * f, x.start * f
    skip_y, skip_x = top - y.first * f, left - x.first * f
    high, wide = min(y.stop * f, height) - top, min(x.stop * f, width) - left
    return top, left, (slice(skip_y, skip_y + high), slice(skip_x, skip_x + wide))


@torch.no_grad()
def encode(
    tokenizer: Parts,
    images: Sequence[Pixels],
    choose: Callable[[Tensor], Tokens] | None = None,
    tile_pixels: int | None = None,
) -> Tokens:
    """The tokens of images of one size, whatever it is: (B, S, h, w), with h and w the sides over f, rounded up.

    Sides that are not multiples of f are extended by reflection.

    Args:
        choose: the tokens of encoder outputs (B, D, h, w); the quantizer's own if not given.
        tile_pixels: about how many pixels per side are computed at once; TILE_PIXELS if not given.
    """
    grid = grid_of(tokenizer, *size_of(images[0]))
    tile, margin = tiling(tokenizer, tokenizer.encoder, grid, tile_pixels)
    choose = choose or (lambda z: tokenizer.quantizer(z).tokens)
    whole: dict[str, Tensor] = {}
    with evaluating(tokenizer.encoder, tokenizer.quantizer) as device:
        for y, x, z in latents(tokenizer, images, tile, margin, device):
            part = choose(z)
            if tile >= max(grid):
                return part
            for name, value in part.parts.items():
                if name not in whole:
                    whole[name] = value.new_empty(*value.shape[:2], *grid)
                whole[name][..., y.start : y.stop, x.start : x.stop] = value
    return Tokens(**whole)


@torch.no_grad()
def decode(
    tokenizer: Parts, tokens: Tokens, height: int, width: int, tile_pixels: int | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """The images of tokens (B, S, h, w) in pieces: the top, the left, and x_hat (B, 3, ., .) in [-1, 1] of each.

    Together they cover height x width, from which the padding of `encode` has been cut.
    """
    f, grid = tokenizer.downsampling, grid_of(tokenizer, height, width)
    tile, reached = tiling(tokenizer, tokenizer.decoder, grid, tile_pixels)
    margin = math.ceil(reached / f)
    with evaluating(tokenizer.quantizer, tokenizer.decoder) as device:
        for y in spans(grid[0], tile, margin):
            for x in spans(grid[1], tile, margin):
                place = (..., slice(y.first, y.last), slice(x.first, x.last))
                cells = () if tile >= max(grid) else place
                part = tokens.map(lambda value, cells=cells: value[cells].to(device))  # type: ignore[misc]
                x_hat = tokenizer.decoder(tokenizer.quantizer.dequantize(part)).float()
                top, left, part_of = shown(y, x, f, height, width)
                yield top, left, x_hat[..., *part_of]


def reconstruct(
    tokenizer: Parts, images: Sequence[Pixels], choose: Callable[[Tensor], Tokens] | None = None
) -> list[np.ndarray]:
    """Images of one size through tokens and back, (H, W, 3) of uint8, or of float32 where the image has floats."""
    height, width = size_of(images[0])
    tokens = encode(tokenizer, images, choose)
    kinds = [image.dtype if isinstance(image, np.ndarray) else np.dtype(np.uint8) for image in images]
    whole = [np.empty((height, width, 3), kind) for kind in kinds]
    for top, left, x_hat in decode(tokenizer, tokens, height, width):
        place = slice(top, top + x_hat.shape[2]), slice(left, left + x_hat.shape[3])
        for i, kind in enumerate(kinds):
            one = x_hat[i : i + 1]
            whole[i][place] = to_pixels(one)[0] if kind == np.uint8 else one[0].movedim(0, -1).cpu()
    return whole
