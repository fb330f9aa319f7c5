"""Images → batches of tensors, each a pure function of its number.

`BatchLoader(TrainBatches(...))` yields them; workers, resumption and the number of processes
change when a batch is made, never what is in it.
"""

import numpy as np
import torch
from torch.utils.data import Dataset

from hybridvq.data.images import Images
from hybridvq.errors import ConfigError

# Streams of random numbers that share the seed: SeedSequence keeps (seed, stream, n) apart.
_ORDER, _AUGMENTATION = 0, 1


class EpochOrder:
    """Which examples a batch shows: shuffled without replacement, epoch after epoch.

    Example i of batch t is at position p = t * batch_size + i of the endless sequence of epochs, each a permutation of
    all `count` drawn from (seed, epoch); sets smaller than a batch repeat within it.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch: tuple[int, np.ndarray] | None = None

    def indices(self, step: int) -> np.ndarray:
        """Return the examples of batch `step`, (batch_size,) int64."""
        positions = step * self.batch_size + np.arange(self.batch_size)
        epochs, within = np.divmod(positions, self.count)
        chosen = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            chosen[epochs == epoch] = self._permutation(epoch)[within[epochs == epoch]]
        return chosen

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            generator = np.random.default_rng((self.seed, _ORDER, epoch))
            self._epoch = epoch, generator.permutation(self.count)
        return self._epoch[1]


class TrainBatches(Dataset[torch.Tensor]):
    """The batches of a training run: shuffled without replacement, randomly cropped and mirrored.

    The order is that of `EpochOrder`; crops are drawn from (seed, t) for the whole batch. Process `rank` of
    `world_size` gets the rank-th part of each batch, so that the parts in order are the batch of a single process.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shrink: float = 1.0,
    ) -> None:
        """Describe `steps` batches of `batch_size` images over all processes, reduced by up to `shrink`.

        Raises:
            ConfigError: a number is out of range, or batch_size is not a multiple of world_size.
        """
        self._own = own_part(batch_size, rank, world_size)
        _check_at_least(0, steps=steps, seed=seed)
        self.images = images
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.shrink = shrink
        self._order = EpochOrder(len(images), batch_size, seed)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> torch.Tensor:
        """Return this process's part of batch `step`: (batch_size // world_size, 3, size, size) in [-1, 1].

        Raises:
            IndexError, DataError: as `crops`.
        """
        return to_tensor(self.crops(step))

    def crops(self, step: int) -> np.ndarray:
        """Return the same as (batch_size // world_size, size, size, 3) uint8.

        Raises:
            IndexError: step is not in [0, steps).
            DataError: an image cannot be decoded.
        """
        if not 0 <= step < self.steps:
            raise IndexError(f"batch {step} of {self.steps}")
        draws = crop_draws(self.seed, step, self.batch_size, self.shrink)[self._own]
        indices = self.indices(step)[self._own].tolist()
        size = self.images.size
        crops = np.empty((len(indices), size, size, 3), dtype=np.uint8)
        for row, index in enumerate(indices):
            crops[row] = self.images.crop_at(index, draws[row])
        return crops

    def indices(self, step: int) -> np.ndarray:
        """Return which images batch `step` shows over all processes, (batch_size,) int64."""
        return self._order.indices(step)


class EvalBatches(Dataset[torch.Tensor]):
    """Every image once, in order, by its deterministic crop; the last batch may be short."""

    def __init__(self, images: Images, batch_size: int, limit: int | None = None) -> None:
        """Describe the batches of the first `limit` images, or of all.

        Raises:
            ConfigError: batch_size or limit is below 1.
        """
        _check_at_least(1, batch_size=batch_size, limit=1 if limit is None else limit)
        self.images = images
        self.batch_size = batch_size
        self.total = len(images) if limit is None else min(limit, len(images))

    def __len__(self) -> int:
        return -(-self.total // self.batch_size)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return batch `index`: (n, 3, size, size) float32 in [-1, 1] with n <= batch_size.

        Raises:
            IndexError: index is not in [0, len).
            DataError: an image cannot be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        first = index * self.batch_size
        last = min(first + self.batch_size, self.total)
        return to_tensor(np.stack([self.images.crop(image, None) for image in range(first, last)]))


def own_part(batch_size: int, rank: int, world_size: int) -> slice:
    """Return which images of a batch are those of process `rank`.

    Raises:
        ConfigError: a number is out of range, or batch_size is not a multiple of world_size.
    """
    _check_at_least(1, batch_size=batch_size, world_size=world_size)
    _check_at_least(0, rank=rank)
    if rank >= world_size:
        raise ConfigError(f"rank {rank} must be below world_size {world_size}")
    if batch_size % world_size:
        raise ConfigError(
            f"batch_size {batch_size} is not divisible by the {world_size} processes; choose a multiple of {world_size}"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def crop_draws(seed: int, step: int, batch_size: int, shrink: float = 1.0) -> np.ndarray:
    """Return the numbers in [0, 1) that place the crops of batch `step`: (batch_size, 3) for top, left, mirror.

    With a `shrink` above 1, (batch_size, 4): the last is a factor from 1 to that, its logarithm uniform.
    """
    generator = np.random.default_rng((seed, _AUGMENTATION, step))
    draws = generator.random((batch_size, 3))
    return draws if shrink == 1 else np.hstack([draws, shrink ** generator.random((batch_size, 1))])


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"{name} {value} must be at least {least}")


def to_tensor(crops: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Map (N, H, W, 3) uint8 in [0, 255] to (N, 3, H, W) float32 in [-1, 1]."""
    channels_first = torch.as_tensor(crops).permute(0, 3, 1, 2)
    return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1.0)
