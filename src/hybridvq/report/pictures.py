"""Held-out images, what each recipe makes of them, and where it is wrong."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hybridvq.report.result import RecipeRuns

Images = NDArray[np.uint8]

_ROWS = 8
# Pictures are enlarged by a whole factor, the nearest to this side, so that every pixel stays a square.
_SIDE_PX = 112
_COLOR_MAP = "inferno"


@dataclass(frozen=True)
class Reconstructions:
    """The reconstructions of a recipe's first seed, or why there are none."""

    recipe: RecipeRuns
    images: Images | None
    problem: str = ""


@dataclass(frozen=True)
class Pictures:
    """Originals (N,H,W,3), N at most 8, and one column per recipe.

    `scale` is the absolute error, in gray levels of 255, that the brightest color of every map stands for.
    """

    originals: Images
    columns: list[Reconstructions]
    scale: int

    @property
    def zoom(self) -> int:
        """Screen pixels for each pixel of an image."""
        return max(1, math.floor(_SIDE_PX / max(self.originals.shape[1:3]) + 0.5))

    def error_map(self, column: Reconstructions, row: int) -> Images:
        """Absolute error of one reconstruction, mean over the colors, as (H,W,3) colors."""
        assert column.images is not None
        return colored(absolute_error(self.originals[row], column.images[row]) / self.scale)


def load_pictures(folder: Path, result: dict[str, Any], recipes: list[RecipeRuns]) -> Pictures | str:
    """The pictures of a result; a sentence that says what is missing if there are none to show."""
    originals = _load(folder, result.get("originals"))
    if isinstance(originals, str):
        return f"No pictures: the held-out images {originals}."
    columns = [_column(folder, recipe, originals) for recipe in recipes]
    originals = originals[:_ROWS]
    errors = [absolute_error(originals, column.images) for column in columns if column.images is not None]
    # A few outliers would turn every map black: the brightest color is the 99.5th percentile and above.
    top = max((float(np.percentile(error, 99.5)) for error in errors), default=0.0)
    return Pictures(originals, columns, max(8, 8 * math.ceil(top / 8)))


def psnr_db(original: Images, reconstruction: Images) -> float:
    """PSNR in dB of two 8-bit images; infinite if they are equal."""
    mse = float(np.mean(((original.astype(float) - reconstruction) / 127.5) ** 2))
    return 10 * math.log10(4 / mse) if mse > 0 else math.inf


def psnr_text(value: float) -> str:
    """PSNR as a caption."""
    return f"{value:.1f} dB" if math.isfinite(value) else "identical"


def to_png(image: Images) -> bytes:
    """An (H,W,3) image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """An image of a kind as a page holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def color_bar() -> Images:
    """The colors of the error maps from no error to `scale`, as a strip (1,128,3)."""
    return colored(np.linspace(0.0, 1.0, 128)[None])


def _column(folder: Path, recipe: RecipeRuns, originals: Images) -> Reconstructions:
    images = _load(folder, recipe.runs[0].get("images"))
    if isinstance(images, str):
        return Reconstructions(recipe, None, f"Its reconstructions {images}.")
    if images.shape != originals.shape:
        return Reconstructions(recipe, None, f"Its reconstructions are {images.shape}, not {originals.shape}.")
    return Reconstructions(recipe, images[:_ROWS])


def _load(folder: Path, name: Any) -> Images | str:
    """An array of images, or the end of a sentence that says why it cannot be shown."""
    if not isinstance(name, str):
        return "were not saved"
    try:
        images = np.load(folder / name, allow_pickle=False)
    except FileNotFoundError:
        return f"are not in {name}, which does not exist"
    except (OSError, ValueError, EOFError) as error:
        return f"cannot be read from {name} ({error})"
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        return f"in {name} are not an array (N, H, W, 3) of bytes"
    return images if images.shape[-1] == 3 else f"in {name} do not have three colors"


def absolute_error(original: Images, reconstruction: Images) -> NDArray[np.float64]:
    """Mean over the colors of the absolute difference, in gray levels."""
    return np.abs(original.astype(float) - reconstruction).mean(axis=-1)


def colored(values: NDArray[np.float64]) -> Images:
    """Values from 0 to 1, (H,W), as colors (H,W,3)."""
    colors = matplotlib.colormaps[_COLOR_MAP](np.clip(values, 0.0, 1.0), bytes=True)
    return np.ascontiguousarray(colors[..., :3])
