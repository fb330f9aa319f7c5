"""Tokens as training batches, each a pure function of its number."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hybridvq.bulk import TokenSet
from hybridvq.data import EpochOrder
from hybridvq.data.batches import own_part
from hybridvq.errors import ConfigError, DataError
from hybridvq.quantizers import Tokens

Batch = Mapping[str, Tensor]  # of codes, gains and label, those that there are


class TokenArrays:
    """All tokens of a set, and their labels if wanted, in memory and in the small types of the shards.

    Args:
        tokens: the set.
        labelled: whether labels are wanted.
        limit: only the first so many images.
        start: leave out so many images before.

    Raises:
        DataError: the set is empty.
        ConfigError: labels are wanted, and it has none.
    """

    def __init__(self, tokens: TokenSet, labelled: bool = False, limit: int | None = None, start: int = 0) -> None:
        which = np.arange(len(tokens))[start:][:limit]
        if not len(which):
            raise DataError(f"{tokens.folder} holds no tokens; a prior needs some to learn from")
        if labelled and tokens.labels is None:
            raise ConfigError(f"{tokens.folder} holds no labels, because its images had none; leave out --conditional")
        self.arrays = tokens.arrays(which)
        if labelled:
            assert tokens.labels is not None
            self.arrays["label"] = tokens.labels[which]

    def __len__(self) -> int:
        return len(self.arrays["codes"])

    def add(self, other: "TokenArrays") -> None:
        """Add the images of another set of the same kind after these."""
        self.arrays = {name: np.concatenate([values, other.arrays[name]]) for name, values in self.arrays.items()}

    def batch(self, which: np.ndarray | slice) -> dict[str, Tensor]:
        """The images `which`: codes and levels (B, S, h, w) int64, float gains float32, label (B,) int64."""
        chosen = {name: torch.from_numpy(values[which]) for name, values in self.arrays.items()}
        return {name: x if x.is_floating_point() else x.to(torch.int64) for name, x in chosen.items()}

    def in_order(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """Every image once; the last batch may be short."""
        for start in range(0, len(self), batch_size):
            yield self.batch(slice(start, start + batch_size))


class TokenBatches(Dataset[Batch]):
    """The batches of a prior's run, in the order of `EpochOrder`; process `rank` of `world_size` gets its part of each.

    Raises:
        ConfigError: batch_size is not a multiple of world_size.
    """

    def __init__(
        self, tokens: TokenArrays, batch_size: int, steps: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.tokens, self.steps = tokens, steps
        self._own, self._order = own_part(batch_size, rank, world_size), EpochOrder(len(tokens), batch_size, seed)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.tokens.batch(self._order.indices(step)[self._own])


def split(batch: Batch) -> tuple[Tokens, Tensor | None]:
    """The tokens of a batch, and its labels."""
    return Tokens(codes=batch["codes"], gains=batch.get("gains")), batch.get("label")
