"""Which photographs of a folder are also, as thumbnails, among the images of a training set.

    python -m experiments.overlap FOLDER --data PATH_OR_HUB_ID

Prints each photograph whose central square, or whose whole, at 8x8 pixels is nearer than NEAR to an image of the set.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvq import open_images
from hybridvq.data import Images, read_image
from hybridvq.files import image_files

NEAR = 0.005  # MSE on [-1, 1]; of 250 ImageNet photographs 9 lie below and are the same picture, the next lies at 0.009
SIDE = 8


def main(words: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", help="of photographs")
    made.add_argument("--data", required=True, help="the set that was trained on")
    arguments = made.parse_args(words)
    thumbnails = thumbnails_of(open_images(arguments.data, "train", size=64))
    for path in image_files([arguments.folder]):
        error, index = nearest(read_image(path), thumbnails)
        if error < NEAR:
            print(f"{path.name}: image {index}, {error:.4f}")


def seen(paths: Sequence[Path], images: Images) -> set[str]:
    """The names of the files that are among `images`."""
    thumbnails = thumbnails_of(images)
    return {path.name for path in paths if nearest(read_image(path), thumbnails)[0] < NEAR}


def thumbnails_of(images: Images) -> np.ndarray:
    """(N, 192), of all images."""
    return np.stack([thumbnail(images.crop(i, None)) for i in range(len(images))])


def nearest(pixels: np.ndarray, thumbnails: np.ndarray) -> tuple[float, int]:
    """The least mean squared error of a photograph to a thumbnail, and which that is."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    views = [pixels, pixels[top : top + side, left : left + side]]
    errors = [np.square(thumbnails - thumbnail(view)).mean(1) for view in views]
    return min((float(error.min()), int(error.argmin())) for error in errors)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to (192,) in [-1, 1]."""
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 127.5 - 1


if __name__ == "__main__":
    main()
