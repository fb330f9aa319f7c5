"""A stream → batches, each a pure function of its number, the number of processes and that of workers."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hybridvq.data.batches import crop_draws, own_part, to_tensor
from hybridvq.data.images import random_crop
from hybridvq.data.stream import Stream
from hybridvq.data.workers import load, share
from hybridvq.errors import DataError


@dataclass
class StreamBatch:
    """A batch, and where its reader stands after it.

    Attributes:
        crops: (batch_size // world_size, size, size, 3) uint8.
        epoch: the reader's epoch.
        read: examples of that epoch the reader has read.
        skipped: a line "name: reason" for each image left out on the way.
    """

    crops: Tensor
    epoch: int
    read: int
    skipped: list[str] = field(default_factory=list)


class StreamReader:
    """The pictures of one process and worker, epoch after epoch without end.

    Each reader goes through its own epochs, so that one with fewer images waits for no other; which shards it gets
    is drawn anew in each.
    """

    def __init__(self, stream: Stream, seed: int, rank: int, world_size: int, epoch: int = 0, read: int = 0) -> None:
        """Start after `read` examples of `epoch`; they are read again, but not decoded."""
        self.stream, self.seed, self.rank, self.world_size = stream, seed, rank, world_size
        self.epoch, self.read = epoch, read
        self.skipped: list[str] = []

    def pictures(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8.

        Raises:
            DataError: a shard or an image cannot be read, or an epoch has no image for this reader.
        """
        while True:
            shown = self.read > 0
            examples = self.stream.examples(self.seed, self.epoch, self.rank, self.world_size)
            for example in itertools.islice(examples, self.read, None):
                self.read += 1
                picture = self.stream.picture(example)
                if isinstance(picture, str):
                    self.skipped.append(picture)
                elif picture is not None:
                    shown = True
                    yield picture
            if not shown:
                readers = self.world_size * max(1, self.stream.workers_of(self.world_size))
                raise DataError(
                    f"{self.stream.location} has no readable image in its {self.stream.split} split for each of "
                    f"{readers} readers; give more images, or fewer --workers"
                )
            self.epoch, self.read = self.epoch + 1, 0


class StreamBatches(IterableDataset[StreamBatch | DataError | None]):
    """The batches from `first` to `steps` of one process; of n workers the i-th makes those with step % n == i.

    Batches before `first` in the round of workers are None. A failure is the last item rather than raised, since a
    data loader turns what its workers raise into a traceback.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        steps: int,
        seed: int,
        rank: int,
        world_size: int,
        first: int,
        positions: list[tuple[int, int]],
    ) -> None:
        self.stream, self.batch_size, self.steps, self.seed = stream, batch_size, steps, seed
        self.rank, self.world_size, self.first, self.positions = rank, world_size, first, positions
        self._own = own_part(batch_size, rank, world_size)

    def __iter__(self) -> Iterator[StreamBatch | DataError | None]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        reader = StreamReader(self.stream, self.seed, self.rank, self.world_size, *self.positions[number])
        pictures = reader.pictures()
        try:
            for step in range(self.first - self.first % workers + number, self.steps, workers):
                yield self._batch(step, reader, pictures) if step >= self.first else None
        except DataError as error:
            yield error

    def _batch(self, step: int, reader: StreamReader, pictures: Iterator[np.ndarray]) -> StreamBatch:
        draws = crop_draws(self.seed, step, self.batch_size)[self._own]
        size = self.stream.size
        crops = np.empty((len(draws), size, size, 3), dtype=np.uint8)
        for row, draw in enumerate(draws):
            crops[row] = random_crop(next(pictures), size, draw)
        skipped, reader.skipped = reader.skipped, []
        return StreamBatch(share(crops), reader.epoch, reader.read, skipped)


class StreamLoader:
    """The batches of a training run from a stream: shuffled, randomly cropped and mirrored.

    What batch t holds follows from the seed, t, the rank and the numbers of processes and workers. Crops are drawn
    from (seed, t), as `TrainBatches` draws them.

    Attributes:
        positions: (epoch, examples read of it) of each worker after the batches given so far.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        first: int = 0,
        positions: list[tuple[int, int]] | None = None,
    ) -> None:
        """Describe the batches from number `first`, which continue from the `positions` after the one before.

        Raises:
            ConfigError: batch_size is not a multiple of world_size.
        """
        own_part(batch_size, rank, world_size)
        self.stream, self.batch_size, self.steps, self.seed = stream, batch_size, steps, seed
        self.rank, self.world_size, self.first = rank, world_size, first
        self.workers = stream.workers_of(world_size)
        self.positions = list(positions or [(0, 0)] * max(1, self.workers))

    def __len__(self) -> int:
        """The batches of the whole run: Lightning counts those before a resume as done."""
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (batch_size // world_size, 3, size, size) float32 in [-1, 1].

        Raises:
            DataError: a shard or an image cannot be read, or a worker was lost.
        """
        batches = StreamBatches(
            self.stream,
            self.batch_size,
            self.steps,
            self.seed,
            self.rank,
            self.world_size,
            self.first,
            list(self.positions),
        )
        step, known = self.first, set(self.stream.skipped)
        for batch in load(batches, self.workers):
            if batch is None:
                continue
            self.positions[step % len(self.positions)] = batch.epoch, batch.read
            fresh = [line for line in dict.fromkeys(batch.skipped) if line not in known]
            self.stream.skipped += fresh
            known.update(fresh)
            step += 1
            yield to_tensor(batch.crops)
