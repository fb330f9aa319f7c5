"""Train and test sides of a set that names them, or that does not."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from hybridvq.data.images import Split
from hybridvq.data.listing import note
from hybridvq.errors import DataError

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
}  # those of `datasets.data_files`

_TESTS = ("test", "validation")  # of those present the first is the test side

HELD_OUT = 0.1
"""Share of the images that is tested on where a set has no split of its own."""

Side = TypeVar("Side")


class Sides(NamedTuple):
    """The files of each side by their relative paths, and the place among their folders that names the side.

    `at` is 0 or 1 for the outer folder or the one in it, and -1 for the names of the files themselves.
    """

    files: dict[Split, list[str]]
    at: int


def split_files(files: Sequence[str], location: str, *, shards: bool) -> Sides | None:
    """Find the split of a set in the names of its folders, one or two levels deep, and of its files if they are shards.

    A folder is named by a split word and perhaps digits, as in `val2017`. Longer names count too, such as
    `imagenet-train-000.tar`: of shards always, of folders if each has such a name. What lies in neither side, or is
    mixed as the set names one side alone, is told on stderr.

    Args:
        files: paths relative to the set, with forward slashes.
        location: the set, for what is told.
        shards: whether they are shards rather than images.

    Returns:
        The two sides, or None unless both are named.
    """
    places = [(0, True), (1, True), *([(-1, False)] if shards else []), (0, False), (1, False)]
    named = False
    for at, whole in places:
        roles = [_role(_part(file, at), whole) for file in files]
        parts: dict[str, list[str]] = {}
        for file, role in zip(files, roles, strict=True):
            parts.setdefault(role, []).append(file)
        sides, others = named_sides(parts), parts.get("", [])
        if sides and (whole or at < 0 or not others):
            if others:
                note(f"{location}: {len(others)} file(s) in neither split are left out, such as {others[0]}")
            return Sides(sides, at)
        named = named or sides is not None or ((whole or at < 0) and len(parts) > 1)
    if named:
        note(f"{location} does not name both a train and a test split; all files are mixed, and a tenth is held out")
    return None


def named_sides(named: dict[str, Side]) -> dict[Split, Side] | None:
    """Return the train and the test side among parts that are named by split words, or None unless both are there."""
    parts: dict[str, Side] = {}
    for name, part in named.items():
        parts.setdefault(_role(name, whole=True), part)
    test = next((parts[role] for role in _TESTS if role in parts), None)
    if "train" not in parts or test is None:
        return None
    return {"train": parts["train"], "test": test}


def is_named(name: str) -> bool:
    """Tell whether the name of a shard has a split word."""
    return bool(_role(name, whole=False))


def _part(file: str, at: int) -> str:
    *folders, name = file.split("/")
    return name if at < 0 else folders[at] if at < len(folders) else ""


def _role(name: str, whole: bool) -> str:
    """Return 'train', 'test', 'validation' or '': by the one word of a name if `whole`, else by its first such word."""
    words = [word for word in re.split(r"[\W\d_]+", name.lower()) if word]
    if whole:
        return _WORDS.get(words[0], "") if len(words) == 1 else ""
    # "trainset", "trainval" and "testset" begin with the word.
    begun = re.match("train|test|val", name.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), _WORDS[begun.group()] if begun else "")


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
