"""Which held-out images a report shows."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridvq.data import EvalBatches, Images
from hybridvq.pixels import to_input

COUNT, OUT_OF = 8, 128  # images shown, out of the first so many
ORIGINALS = "originals.npy"


def choose_images(images: Images) -> Tensor:
    """The image whose gray levels vary most, of each eighth of the first 128 images.

    Returns (N, 3, H, W) in [-1, 1], N at most 8. An eighth is every eighth image. Blank crops and plain textures vary
    little, outlines and objects much.
    """
    x = EvalBatches(images, OUT_OF, OUT_OF)[0]
    spread = x.mean(1).var((1, 2)).tolist()
    return x[[max(range(first, len(x), COUNT), key=spread.__getitem__) for first in range(min(COUNT, len(x)))]]


def read_chosen(out: Path) -> Tensor:
    """The chosen images of a comparison, from its folder."""
    pixels = np.load(out / ORIGINALS, allow_pickle=False)
    return torch.stack([to_input(one, torch.device("cpu")) for one in pixels])
