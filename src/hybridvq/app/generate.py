"""The tab Generate: new pictures from the prior, and pictures continued from one half."""

import math
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from hybridvq.app import markup
from hybridvq.app.models import PriorModel
from hybridvq.app.picture import Picture
from hybridvq.errors import ConfigError
from hybridvq.generation import continue_image, generate, picture_grid, show_kept
from hybridvq.settings import SamplingSettings

MOST = 16  # pictures at once
ANY = "any class"
SHOWN_PX = 180  # about how wide a picture is shown


def settings_of(temperature: float, top_k: float | None, top_p: float, guidance: float = 1.0) -> SamplingSettings:
    """The sampling settings of the page's controls, where a top k of 0 and a top p of 1 stand for all codes."""
    return SamplingSettings(temperature, int(top_k) if top_k else None, top_p if top_p < 1 else None, guidance)


def draw(
    model: PriorModel,
    settings: SamplingSettings,
    seed: float | None,
    count: float,
    label: str = ANY,
    picture: Picture | None = None,
    keep: Literal["top", "left"] = "top",
) -> np.ndarray:
    """Pictures from the prior in a grid, (., ., 3) uint8; with a picture, what is kept of it and its continuations.

    Raises:
        ConfigError: a setting has no such value.
    """
    seed, count = whole(seed), int(count)
    if not 1 <= count <= MOST:
        raise ConfigError(f"the number of pictures is {count}; draw 1 to {MOST} at once")
    number = None if label == ANY else model.classes.index(label)
    shape, tokenizer = model.prior.shape, model.tokenizer
    given = None
    if picture is not None:
        side = max(shape) * tokenizer.downsampling
        square = ImageOps.fit(Image.fromarray(picture.pixels), (side, side), Image.Resampling.BICUBIC)
        given = continue_image(square, keep, tokenizer, shape)
    images = generate(model.prior, tokenizer, [number] * count, shape, settings, seed, given)
    shown = torch.cat([show_kept(given, tokenizer), images]) if given else images
    return picture_grid(shown, columns_of(len(shown)))


def whole(seed: float | None) -> int:
    """A seed as a whole number.

    Raises:
        ConfigError: it is none, or out of range.
    """
    if seed is None or seed != int(seed) or not 0 <= seed < 2**53:
        raise ConfigError(f"the seed is {seed}; give a whole number from 0 to {2**53 - 1}")
    return int(seed)


def columns_of(count: int) -> int:
    """Of a grid: at most 5 of up to 10 pictures, else a row more square."""
    return min(count, 5) if count <= 10 else math.ceil(math.sqrt(count))


def render(model: PriorModel, grid: np.ndarray, count: int, text: str) -> str:
    """The grid, enlarged to a useful size."""
    side = model.prior.shape[1] * model.tokenizer.downsampling
    zoom = max(1, round(SHOWN_PX / side))
    return markup.block(markup.figure(grid, f"{count} pictures", text, width=zoom * grid.shape[1]))
