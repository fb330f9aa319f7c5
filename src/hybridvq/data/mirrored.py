"""The mirror images of a set."""

import numpy as np

from hybridvq.data.derived import Derived
from hybridvq.data.images import Images


class Mirrored(Derived):
    """Each image of a set mirrored left to right, and its deterministic crop with it; classes are the same."""

    def __init__(self, images: Images) -> None:
        super().__init__(images, "mirrored")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_ids(self) -> np.ndarray | None:
        return self.images.class_ids

    def pixels(self, index: int) -> np.ndarray:
        return self.images.pixels(index)[:, ::-1]

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        top, left = self.images.origin(index, height, width)
        return top, width - self.size - left
