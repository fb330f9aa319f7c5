"""The sample photographs: seven that scikit-image and scikit-learn ship, so that nothing is downloaded.

| photograph         | shows                         | from         | license                          |
|--------------------|-------------------------------|--------------|----------------------------------|
| astronaut          | a portrait                    | scikit-image | public domain (NASA)             |
| rocket             | a launch pad                  | scikit-image | public domain (SpaceX)           |
| hubble_deep_field  | galaxies                      | scikit-image | public domain (NASA, ESA, STScI) |
| china              | a temple, trees               | scikit-learn | CC BY 2.0, danielbuechele        |
| chelsea            | a cat                         | scikit-image | CC0, Stefan van der Walt         |
| coffee             | a cup on a table              | scikit-image | CC0, Rachel Michetti             |
| flower             | a flower                      | scikit-learn | CC BY 2.0, vultilion [1]         |

[1] The account that scikit-learn links to as the source; its text names danielbuechele for both photographs.

The split is by photograph, so that no test crop comes from a picture that was trained on. Each side has
something living, something made and both smooth and textured regions: an animal, an object and a plant are
tested; a person, a machine, buildings with trees, and the sky are trained on.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hybridvq.data.images import Images, Split, fingerprint
from hybridvq.errors import ConfigError, DataError
from hybridvq.extras import lacking, missing

PHOTOGRAPHS: Mapping[Split, tuple[str, ...]] = {
    "train": ("astronaut", "rocket", "hubble_deep_field", "china"),
    "test": ("chelsea", "coffee", "flower"),
}
"""The photographs of each split, by name."""

_FROM_SCIKIT_LEARN = {"china", "flower"}


class PhotoTiles(Images):
    """Square crops of photographs at native resolution, one image for each tile of a size x size grid.

    The deterministic crop of image i is exactly tile i; a random crop is anywhere in the photograph that owns
    tile i. Tiles take turns among the photographs, in a shuffled order within each, so that any first few
    come from different photographs and places.
    """

    def __init__(self, split: Split, size: int, *, limit: int | None = None) -> None:
        """Load the photographs of a split; with a limit, keep the first `limit` tiles.

        Raises:
            ConfigError: size exceeds every photograph of the split.
            DataError: the installed packages no longer ship a photograph.
        """
        self.name, self.split, self.size = "photos", split, size
        self.skipped = []
        names = PHOTOGRAPHS[split]
        self._photographs = [load_photograph(name) for name in names]
        shapes = [photograph.shape[:2] for photograph in self._photographs]
        self._tiles = _take_turns([_tiles(height, width, size) for height, width in shapes])[:limit]
        if not self._tiles:
            largest = max(min(shape) for shape in shapes)
            raise ConfigError(
                f"the size {size} exceeds the {split} photographs of data 'photos'; choose at most {largest} "
                "or give a folder of your own images"
            )
        lines = [f"{name} {height}x{width}" for name, (height, width) in zip(names, shapes, strict=True)]
        self.fingerprint = fingerprint([split, f"size {size}", f"tiles {len(self._tiles)}", *lines])

    def __len__(self) -> int:
        return len(self._tiles)

    def pixels(self, index: int) -> np.ndarray:
        return self._photographs[self._tiles[index][0]]

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        _, top, left = self._tiles[index]
        return top, left


def _tiles(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Return (top, left) of the whole tiles of a photograph, in a fixed shuffled order."""
    corners = [(top, left) for top in range(0, height - size + 1, size) for left in range(0, width - size + 1, size)]
    return [corners[at] for at in np.random.default_rng(0).permutation(len(corners))]


def _take_turns(tiles: list[list[tuple[int, int]]]) -> list[tuple[int, int, int]]:
    """Return (photograph, top, left), one from each photograph in turn while it has tiles left."""
    turns = sorted((turn, photograph) for photograph, own in enumerate(tiles) for turn in range(len(own)))
    return [(photograph, *tiles[photograph][turn]) for turn, photograph in turns]


def photo_files() -> list[Path]:
    """Where the sample photographs lie, those of both splits.

    Raises:
        DataError: the installed packages no longer ship one.
        MissingExtraError: they are not installed.
    """
    files = []
    for name in (*PHOTOGRAPHS["train"], *PHOTOGRAPHS["test"]):
        package, folder = ("sklearn", "datasets/images") if name in _FROM_SCIKIT_LEARN else ("skimage", "data")
        spec = find_spec(package)
        if spec is None:
            raise lacking(package)
        found = sorted(Path(spec.origin).parent.glob(f"{folder}/{name}.*")) if spec.origin else []
        if not found:
            raise _missing(name, "no such file")
        files.append(found[0])
    return files


def load_photograph(name: str) -> np.ndarray:
    """One of the photographs by its name, (H, W, 3) uint8.

    Raises:
        DataError: the installed packages no longer ship it.
        MissingExtraError: they are not installed.
    """
    try:
        if name in _FROM_SCIKIT_LEARN:
            from sklearn.datasets import load_sample_image

            return load_sample_image(f"{name}.jpg")
        import skimage.data

        return getattr(skimage.data, name)()
    # Their loaders raise whatever their download tools do once a picture is no longer part of the package.
    except Exception as error:
        extra = missing(error) if isinstance(error, ModuleNotFoundError) else None
        raise extra or _missing(name, type(error).__name__) from None


def _missing(name: str, reason: str) -> DataError:
    package = "scikit-learn" if name in _FROM_SCIKIT_LEARN else "scikit-image"
    return DataError(
        f"the sample photograph '{name}' cannot be loaded from {package} ({reason}); reinstall {package} or give a "
        "folder of your own images"
    )
