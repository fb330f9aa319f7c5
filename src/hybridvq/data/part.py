"""Some of the images of a set."""

import numpy as np

from hybridvq.data.derived import Derived
from hybridvq.data.images import Images
from hybridvq.errors import ConfigError


class Part(Derived):
    """The images of a set with these numbers, in this order.

    Args:
        images: the set.
        numbers: (N,) int64.
        title: what part it is, for its name and fingerprint.
    """

    def __init__(self, images: Images, numbers: np.ndarray, title: str) -> None:
        super().__init__(images, title)
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def class_ids(self) -> np.ndarray | None:
        ids = self.images.class_ids
        return None if ids is None else ids[self.numbers]

    def pixels(self, index: int) -> np.ndarray:
        return self.images.pixels(int(self.numbers[index]))

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        return self.images.origin(int(self.numbers[index]), height, width)


def set_aside(images: Images, count: int) -> tuple[Part, Part]:
    """Return the images without `count` evenly spread ones, and these.

    Raises:
        ConfigError: there are not as many, with at least one left.
    """
    if not 0 < count < len(images):
        raise ConfigError(f"validation is {count}, and there are {len(images)} training images; use fewer")
    aside = (np.arange(count) * len(images)) // count
    kept = np.setdiff1d(np.arange(len(images)), aside)
    return Part(images, kept, f"all but {count} for validation"), Part(images, aside, f"{count} for validation")
