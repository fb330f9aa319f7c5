"""What a user gives as an image, as pixels, and pixels as what was given."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hybridvq.data import open_image, to_rgb
from hybridvq.errors import DataError, ShapeError

Picture = str | Path | Image.Image | np.ndarray  # a file, any Pillow image, or (H, W, 3) uint8 or floats in [-1, 1]
Pixels = Image.Image | np.ndarray  # an RGB image, or (H, W, 3) uint8 or float32 in [-1, 1]


def as_pixels(image: Picture) -> Pixels:
    """An RGB image of a file or a Pillow image, under the policy of `hybridvq.data.decode`; an array as it is.

    Raises:
        ShapeError: this is no image, or an array without pixels.
        DataError: the file cannot be read, the Pillow image has no pixel or some of unknown range, or floats lie
            outside [-1, 1].
    """
    if isinstance(image, str | Path):
        return open_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = image if isinstance(image, np.ndarray) else None
    if array is not None and array.ndim == 3 and array.shape[2] == 3 and array.size:
        if array.dtype == np.uint8:
            return array
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float32)
            check_range(torch.from_numpy(array))
            return array
    kind = type(image).__name__ if array is None else f"{array.dtype} of shape {array.shape}"
    raise ShapeError(
        f"the image is {kind}; give the path of a file, a Pillow image, or (height, width, 3) uint8 or floats in "
        "[-1, 1], with at least one pixel"
    )


def as_bytes(pixels: Pixels) -> Pixels:
    """The same with floats rounded to uint8."""
    if isinstance(pixels, Image.Image) or pixels.dtype == np.uint8:
        return pixels
    return to_pixels(torch.from_numpy(pixels).movedim(-1, 0)[None])[0].numpy()


def as_given(pixels: np.ndarray, image: Picture) -> Image.Image | np.ndarray:
    """Pixels (H, W, 3) as the kind of `image`: an array of its type, or a Pillow image, also for a file."""
    return pixels.astype(image.dtype) if isinstance(image, np.ndarray) else Image.fromarray(pixels)


def squared_error(a: np.ndarray, b: np.ndarray) -> int:
    """The sum of (a - b)^2 of uint8 pixels, which is exact."""
    return int(((a.astype(np.int32) - b) ** 2).sum(dtype=np.int64))


def mse(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared error, on the scale of [-1, 1], of uint8 pixels."""
    return squared_error(a, b) / a.size / 127.5**2


def check_range(x: Tensor) -> None:
    """Raise DataError unless all values of x lie in [-1, 1], to a hundredth; not while a graph is traced."""
    if torch.compiler.is_compiling() or not x.numel():
        return
    low, high = (value.item() for value in torch.aminmax(x.detach()))
    if not -1.01 <= low <= high <= 1.01:  # false for NaN
        found = "holds NaN" if math.isnan(low) else f"has values from {low:.4g} to {high:.4g}"
        raise DataError(f"x {found}; images lie in [-1, 1]: of values in 0 to 255, give x / 127.5 - 1")


def to_pixels(x: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu()


def to_input(pixels: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3), uint8 or floats in [-1, 1], to (3, H, W) float32 in [-1, 1]."""
    x = torch.tensor(pixels).to(device).movedim(-1, 0)
    return x.float() if x.is_floating_point() else x.float() / 127.5 - 1
