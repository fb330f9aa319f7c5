"""New images: tokens drawn from a prior, decoded, and written as files.

prior ──sample──► tokens ──decode──► x_hat ──► grid.png, 000.png, 001.png, ...
           ▲
a picture's own tokens, where they are kept
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hybridvq.data import open_image, to_rgb
from hybridvq.data.batches import to_tensor
from hybridvq.data.decode import UnreadableError, fit
from hybridvq.devices import Device
from hybridvq.errors import ConfigError, DataError
from hybridvq.files import save_png
from hybridvq.pixels import to_pixels
from hybridvq.priors import Prior, load_prior, tokenizer_of_prior
from hybridvq.quantizers import Tokens
from hybridvq.ranges import COUNT, Range, check_weight
from hybridvq.saved import PriorConfig, label_numbers, prior_folder, read_prior_config
from hybridvq.settings import SamplingSettings
from hybridvq.tokenizer import Tokenizer, load_tokenizer
from hybridvq.writing import sole_writer

SEED = Range(0, 2**63 - 1)
CHUNK = 64  # images drawn together
GAP = 2  # pixels between the images of a grid
TEXT = (8, 14)  # the smallest and the largest type of its names
Keep = Literal["top", "left"] | float


@dataclass(frozen=True)
class Given:
    """A picture to continue: its tokens (batch 1), and the positions (h, w) whose tokens are kept."""

    tokens: Tokens
    keep: Tensor


def class_names(numbers: Sequence[int], config: PriorConfig) -> list[str]:
    """What classes are called."""
    return [config.class_names[number] if config.class_names else f"class {number}" for number in numbers]


def sample(
    prior: str | Path,
    count: int = 16,
    out: str | Path | None = None,
    *,
    settings: SamplingSettings | None = None,
    labels: Sequence[str] = (),
    shape: tuple[int, int] | None = None,
    complete: str | Path | None = None,
    keep: Keep = "top",
    model: str | Path | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> list[Image.Image]:
    """New images, or continuations of one, as `hybridvq sample` makes them.

    Args:
        prior: a folder that `train_prior` wrote, or a bundled prior.
        count: images, of each label if there are some.
        out: the folder that they are written to, with all of them in grid.png; nowhere if None.
        settings: how tokens are drawn.
        labels: classes, by name or number, or "all" alone; each becomes a row of grid.png, after its name.
        shape: (h, w) positions; as trained if None.
        complete: a picture to continue.
        keep: what is kept of that picture: its top or left half, or a share of it in reading order.
        model: the tokenizer to decode with; the prior's own copy if None.
        seed: the images follow from it.
        device: where they are computed.

    Raises:
        ConfigError, ShapeError: a number, label or setting cannot be used, or `out` cannot be written.
        ModelError, DataError: the prior, the tokenizer or the picture cannot be read.
    """
    COUNT.check("count", count)
    SEED.check("seed", seed)
    if keep != "top" and complete is None:
        raise ConfigError(f"keep is {keep!r}, which is of a picture to continue; give complete with it")
    model = model or tokenizer_of_prior(prior)
    loaded, tokenizer = load_prior(prior, model, device=device), load_tokenizer(model, device=device)
    h, w = shape or loaded.shape
    loaded.check_shape((h, w))
    config = read_prior_config(prior_folder(prior))
    wanted = label_numbers(labels, config, prior)
    classes: list[int | None] = [*wanted] or [None]
    given = continue_picture(complete, keep, tokenizer, (h, w)) if complete else None
    numbers = [label for label in classes for _ in range(count)]
    images = generate(loaded, tokenizer, numbers, (h, w), settings or SamplingSettings(), seed, given)
    if out is not None:
        shown = torch.cat([show_kept(given, tokenizer), images]) if given else images
        by_class = len(wanted) > 1 and not given
        columns = count if by_class else math.ceil(math.sqrt(len(shown)))
        grid = picture_grid(shown, columns, class_names(wanted, config) if by_class else ())
        write_images(images, file_names(numbers, count), grid, Path(out))
    return [Image.fromarray(pixels) for pixels in to_pixels(images).numpy()]


@torch.inference_mode()
def generate(
    prior: Prior,
    tokenizer: Tokenizer,
    labels: Sequence[int | None],
    shape: tuple[int, int],
    settings: SamplingSettings,
    seed: int = 0,
    given: Given | None = None,
    progress: Callable[[float], object] = lambda share: None,
) -> Tensor:
    """Draw an image for each of `labels`, (n, 3, f h, f w) in [-1, 1], on a grid of `shape` (h, w) positions.

    The images follow from the seed, on any device up to rounding; a label of None asks for any class. `progress` is
    called with the share that is done.

    Raises:
        ShapeError: the prior cannot do this shape.
        ConfigError: a label or setting is out of range.
    """
    device = next(tokenizer.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    images = []
    for start in range(0, len(labels), CHUNK):
        part = labels[start : start + CHUNK]

        def tell(done: int, total: int, start: int = start, count: int = len(part)) -> None:
            progress((start + count * done / total) / len(labels))

        tokens = prior.sample(
            len(part),
            shape,
            label=None if part[0] is None else torch.tensor(part, device=device),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            guidance=settings.guidance,
            passes=settings.passes,
            noise=settings.noise,
            progress=tell,
            given=given.tokens if given else None,
            keep=given.keep if given else None,
            generator=generator,
        )
        images.append(tokenizer.decode(with_details(tokens, tokenizer, settings.details, generator)).float().cpu())
    return torch.cat(images)


def with_details(
    tokens: Tokens, tokenizer: Tokenizer, temperature: float | None, generator: torch.Generator | None = None
) -> Tokens:
    """The tokens with what they leave open drawn, at this temperature, or 1 if None.

    Raises:
        ConfigError: a temperature is given, and they leave nothing open or it has no such value.
    """
    used = 1.0 if temperature is None else temperature
    check_weight("details", used)
    drawn = tokenizer.quantizer.draw_details(tokens, used, generator)
    if drawn is None and temperature is not None:
        raise ConfigError(f"details is {temperature}, but these tokens have no coefficients to draw; leave it out")
    return tokens if drawn is None else drawn


def position_pixels(tokenizer: Tokenizer) -> int:
    """Pixels per side that one position of the codes stands for."""
    return tokenizer.downsampling * tokenizer.quantizer.space().coarser


def kept_positions(keep: Keep, shape: tuple[int, int]) -> Tensor:
    """The positions (h, w) bool to keep of a picture: its upper or left half, or a share of it in reading order.

    Raises:
        ConfigError: the share is not between 0 and 1, or nothing is left to draw or to keep.
    """
    h, w = shape
    kept = torch.zeros(h, w, dtype=torch.bool)
    if keep == "top":
        kept[: h // 2] = True
    elif keep == "left":
        kept[:, : w // 2] = True
    elif 0 < keep < 1:
        kept.view(-1)[: round(keep * h * w)] = True
    if kept.all() or not kept.any():
        raise ConfigError(
            f"--keep {keep} leaves nothing to keep or nothing to draw of {h}x{w} positions; use top, left, or a share "
            "such as 0.5"
        )
    return kept


def continue_picture(path: str | Path, keep: Keep, tokenizer: Tokenizer, shape: tuple[int, int]) -> Given:
    """As `continue_image`, of an image file.

    Raises:
        DataError: it cannot be read.
        ConfigError: `keep` leaves nothing to keep or to draw.
    """
    return continue_image(open_image(path), keep, tokenizer, shape)


@torch.inference_mode()
def continue_image(image: Image.Image, keep: Keep, tokenizer: Tokenizer, shape: tuple[int, int]) -> Given:
    """The tokens of an image, resized and cut to a grid of `shape` (h, w), and which of them to keep.

    Raises:
        DataError: the image cannot be read, or is too long to be enlarged.
        ConfigError: `keep` leaves nothing to keep or to draw.
    """
    f, device = position_pixels(tokenizer), next(tokenizer.parameters()).device
    height, width = f * shape[0], f * shape[1]
    try:
        pixels = fit(to_rgb(image), max(height, width))
    except UnreadableError as error:
        raise DataError(f"the image cannot be continued ({error}); give another one") from None
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    x = to_tensor(pixels[None, top : top + height, left : left + width].copy()).to(device)
    tokens = tokenizer.encode(x)
    return Given(Tokens(codes=tokens.codes, gains=tokens.gains), kept_positions(keep, shape))


def show_kept(given: Given, tokenizer: Tokenizer) -> Tensor:
    """The reconstruction of a picture, (1, 3, f h, f w), gray where it is not kept."""
    with torch.inference_mode():
        x_hat = tokenizer.decode(given.tokens).float().cpu()
    f = position_pixels(tokenizer)
    return x_hat * given.keep.repeat_interleave(f, 0).repeat_interleave(f, 1)


def picture_grid(images: Tensor, columns: int, names: Sequence[str] = ()) -> np.ndarray:
    """Images (n, 3, H, W) in [-1, 1] as one picture (rows, ..., 3) uint8, on white, each row after its name if any."""
    pixels = to_pixels(images).numpy()
    n, height, width, _ = pixels.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    return np.hstack([row_names(names, height, len(canvas)), canvas]) if names else canvas


def row_names(names: Sequence[str], height: int, total: int) -> np.ndarray:
    """The names of rows of `height` pixels, right-aligned, black on white, (total, ., 3) uint8."""
    font = ImageFont.load_default(min(max(height // 2, TEXT[0]), TEXT[1]))
    widths = [math.ceil(font.getlength(name)) for name in names]
    picture = Image.new("RGB", (max(widths) + 2 * GAP, total), "white")
    draw = ImageDraw.Draw(picture)
    for i, name in enumerate(names):
        middle = GAP + i * (height + GAP) + height // 2
        draw.text((picture.width - GAP, middle), name, "black", font, anchor="rm")
    return np.asarray(picture)


def file_names(labels: Sequence[int | None], count: int) -> list[str]:
    """What the images are called: their number, after that of their class where they have one."""
    return [f"{i:03d}" if label is None else f"class{label:03d}-{i % count:03d}" for i, label in enumerate(labels)]


def write_images(images: Tensor, names: Sequence[str], grid: np.ndarray, out: Path) -> None:
    """Write each image (n, 3, H, W) under its name and the grid as grid.png.

    Raises:
        ConfigError: `out` cannot be written, or another process writes there.
    """
    files = {f"{name}.png": pixels for name, pixels in zip(names, to_pixels(images).numpy(), strict=True)}
    with sole_writer(out):
        for name, pixels in {**files, "grid.png": grid}.items():
            save_png(Image.fromarray(pixels), out / name)
