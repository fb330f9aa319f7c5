"""The tab Generate: new pictures from the prior, and pictures continued from one half."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image, ImageOps

from hybridvq.app import markup
from hybridvq.app.models import PriorModel
from hybridvq.app.picture import Picture
from hybridvq.app.values import choice, number, whole
from hybridvq.errors import ConfigError
from hybridvq.generation import continue_image, generate, picture_grid, position_pixels, show_kept
from hybridvq.settings import SamplingSettings

MOST = 16  # pictures at once
ANY = "any class"
HALVES = ("top", "left")
WARMEST = 1.5
LEAST_P = 0.05
STRONGEST, STRONG = 10.0, 5.0  # guidance: the most, and to begin with
LAST_SEED = 2**53 - 1  # of the whole numbers that a browser tells apart
SHOWN_PX, LARGEST_ZOOM = 300, 5  # about how wide a picture is shown, and how often each of its pixels at most


def choices_of(model: PriorModel) -> list[str]:
    """What may be asked for: any class, where the prior has learned images without a label, and each class."""
    return [*([ANY] if model.prior.knows_unlabeled else []), *model.classes]


def settings_of(temperature: Any, top_k: Any, top_p: Any, guidance: Any = 1.0) -> SamplingSettings:
    """The sampling settings of the page's controls, where a top k of 0 or none and a top p of 1 stand for all codes.

    Raises:
        ConfigError: a control has no such value.
    """
    k, p = whole("top k", top_k or 0, 0, 2**31), number("top p", top_p, LEAST_P, 1)
    warmth, strength = (
        number("the temperature", temperature, 0, WARMEST),
        number("the guidance", guidance, 1, STRONGEST),
    )
    return SamplingSettings(warmth, k or None, p if p < 1 else None, strength)


def draw(
    model: PriorModel,
    settings: SamplingSettings,
    seed: Any,
    count: Any,
    label: Any = ANY,
    picture: Picture | None = None,
    keep: Any = "top",
    progress: Callable[[float], object] = lambda share: None,
) -> np.ndarray:
    """Pictures from the prior in a grid, (., ., 3) uint8; with a picture, what is kept of it and its continuations.

    Guidance is towards a class; where none is asked for, it does nothing. `progress` is as of `generate`.

    Raises:
        ConfigError: a setting has no such value.
    """
    if count not in range(1, MOST + 1):
        raise ConfigError(f"the number of pictures is {count!r}; draw 1 to {MOST} at once")
    seed, count = whole("the seed", seed, 0, LAST_SEED), int(count)
    half = cast(Literal["top", "left"], choice("what to keep", keep, HALVES))
    named = choice("the class", label, choices_of(model))
    drawn = None if named == ANY else model.classes.index(named)
    if drawn is None or not model.prior.knows_unlabeled:
        settings = replace(settings, guidance=1.0)
    shape, tokenizer = model.prior.shape, model.tokenizer
    given = None
    if picture is not None:
        side = max(shape) * position_pixels(tokenizer)
        square = ImageOps.fit(Image.fromarray(picture.pixels), (side, side), Image.Resampling.BICUBIC)
        given = continue_image(square, half, tokenizer, shape)
    images = generate(model.prior, tokenizer, [drawn] * count, shape, settings, seed, given, progress)
    shown = torch.cat([show_kept(given, tokenizer), images]) if given else images
    return picture_grid(shown, columns_of(len(shown)))


def columns_of(count: int) -> int:
    """The columns of a grid: at most 5 for up to 10 pictures, else a squarer one."""
    return min(count, 5) if count <= 10 else math.ceil(math.sqrt(count))


def render(model: PriorModel, grid: np.ndarray, count: int, text: str) -> str:
    """The grid, enlarged to a useful size."""
    side = model.prior.shape[1] * position_pixels(model.tokenizer)
    zoom = min(max(1, round(SHOWN_PX / side)), LARGEST_ZOOM)
    return markup.block(markup.figure(grid, f"{count} pictures", text, width=zoom * grid.shape[1]))
