"""Train and test sides of a set that names them, or that does not."""

import hashlib
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from hybridvq.data.images import Split
from hybridvq.errors import DataError

TRAIN_NAME = "train"
TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of the test side; of those present the first is used."""

HELD_OUT = 0.1
"""Share of the images that is tested on where a set has no split of its own."""

Side = TypeVar("Side")


def named_sides(named: dict[str, Side]) -> dict[Split, Side] | None:
    """Return the train and the test side among named parts, or None unless both are there."""
    test = next((named[name] for name in TEST_NAMES if name in named), None)
    if TRAIN_NAME not in named or test is None:
        return None
    return {"train": named[TRAIN_NAME], "test": test}


def other_split(split: Split) -> Split:
    """Return "test" for "train", and "train" for "test"."""
    return "test" if split == "train" else "train"


def hold_out(keys: Iterable[str], split: Split, location: str) -> np.ndarray:
    """Return the numbers, ascending, of the keys on one side of a 90:10 split by a hash of each key.

    A key's side does not depend on the other keys, so adding images moves none from test to train. Only if a
    side were empty is the key nearest to it moved there.

    Raises:
        DataError: there are fewer than two keys.
    """
    hashes = np.array([_unit_hash(key) for key in keys])
    if len(hashes) < 2:
        raise DataError(
            f"{location} has {len(hashes)} image(s), which cannot be split into train and test; add images "
            "or give a folder with 'train' and 'test' subfolders"
        )
    tested = hashes < HELD_OUT
    if not tested.any():
        tested[hashes.argmin()] = True
    if tested.all():
        tested[hashes.argmax()] = False
    return np.flatnonzero(tested if split == "test" else ~tested)


def is_held_out(key: str) -> bool:
    """Tell the side of one key, as `hold_out` does for sets whose sides are not empty."""
    return _unit_hash(key) < HELD_OUT


def _unit_hash(key: str) -> float:
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
