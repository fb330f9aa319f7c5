"""Images that fit neither in memory nor on disk: read shard by shard, decoded when a batch needs them.

open_stream ──► Stream ─┬─ examples()          encoded, shuffled, the part of one process and worker
                        ├─ StreamLoader        batches, resumed exactly                stream_batches.py
                        └─ take() ──► Images   the first images, decoded into memory
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hybridvq.data.decode import UnreadableError, decode, fit, without_warnings
from hybridvq.data.folders import is_mini_imagenet
from hybridvq.data.hub import looks_like_hub_id
from hybridvq.data.images import MEMORY_BUDGET, Images, Split, fingerprint
from hybridvq.data.listing import list_folder, note_left_out
from hybridvq.data.machine import machine_fault
from hybridvq.data.memory import PixelMemory, expected_bytes
from hybridvq.data.parquet import first_line, parquet_of
from hybridvq.data.shards import Encoded, Shards, hub_shards, parquet_shards, tar_shards
from hybridvq.data.sources import check_choice
from hybridvq.data.splits import is_held_out
from hybridvq.errors import ConfigError, DataError, HybridVQError


class Stream:
    """One split of a data set, read in an order that follows from a seed.

    Attributes:
        name, split, size, fingerprint, skipped: as in `Images`; the fingerprint tells names and sizes of the shards,
            or a hub id with its revision, and `skipped` fills as the stream is read.
        shuffle_buffer: images that are held back, encoded, and drawn from at random.
        workers: processes that read for each training process, 0 for the training process itself.
    """

    def __init__(
        self, shards: Shards, split: Split, size: int, *, shuffle_buffer: int, workers: int, skip_unreadable: bool
    ) -> None:
        self.name, self.split, self.size = shards.name, split, size
        self.shuffle_buffer, self.workers, self.skip_unreadable = shuffle_buffer, workers, skip_unreadable
        self.skipped: list[str] = []
        self.fingerprint = fingerprint([split, f"hashed {shards.hashed}", *shards.identity])
        self._shards = shards

    @property
    def location(self) -> str:
        return self._shards.location

    def workers_of(self, world_size: int) -> int:
        """Return how many workers each of `world_size` processes can keep busy: at most one per shard."""
        shards = self._shards.dataset.num_shards
        return min(self.workers, shards // world_size if shards >= world_size else shards)

    def examples(self, seed: int, epoch: int, rank: int, world_size: int) -> Iterator[dict[str, Any]]:
        """Yield the part of an epoch that is read by process `rank` and, in a data loader's worker, by that worker.

        The parts of an epoch share no image and together have all. A process gets whole shards, or, of fewer shards
        than processes, every world_size-th image.

        Raises:
            DataError: a shard cannot be read.
        """
        from datasets.distributed import split_dataset_by_node

        dataset = self._shards.dataset
        strategy = "shards" if dataset.num_shards >= world_size else "examples"

        def shuffled() -> Iterator[dict[str, Any]]:
            # Made anew for each epoch: workers share the memory in which a data set keeps its epoch.
            order = dataset.shuffle(seed=seed, buffer_size=self.shuffle_buffer)
            order = split_dataset_by_node(order, rank, world_size, strategy)
            order.set_epoch(epoch)
            yield from order

        return self._guarded(shuffled())

    def picture(self, example: dict[str, Any]) -> np.ndarray | str | None:
        """Decode an example: (H, W, 3) uint8 with min(H, W) == size.

        Returns:
            Those pixels; None if the image is on the other side of a split by hash; a line "name: reason" for an
            image that is left out as unreadable.

        Raises:
            DataError: it cannot be decoded, and skip_unreadable is off.
        """
        encoded = self._read(example)
        if self._shards.hashed and is_held_out(encoded.key) != (self.split == "test"):
            return None
        try:
            if isinstance(encoded.content, UnreadableError):
                raise encoded.content
            with without_warnings():
                return fit(decode(encoded.content), self.size)
        except UnreadableError as error:
            if self.skip_unreadable:
                return f"{encoded.name}: {error}"
            raise DataError(
                f"{self.location}/{encoded.name} cannot be read as an image ({error}); "
                "remove it or pass --skip-unreadable"
            ) from None

    def take(self, limit: int) -> "StreamedImages":
        """Read the first `limit` images of the split, in the order of the shards, and keep them in memory.

        Where train and test are sides of a hash, ten times as many are read to find the test images.

        Raises:
            ConfigError: limit is below 1.
            DataError: there is no image, or one cannot be decoded and skip_unreadable is off.
        """
        if limit < 1:
            raise ConfigError(f"the limit of {limit} images must be at least 1")
        return StreamedImages(self, itertools.islice(self._in_order(), limit))

    def _in_order(self) -> Iterator[np.ndarray]:
        for example in self._guarded(iter(self._shards.dataset)):
            picture = self.picture(example)
            if isinstance(picture, str):
                self.skipped.append(picture)
            elif picture is not None:
                yield picture

    def _read(self, example: dict[str, Any]) -> Encoded:
        try:
            return self._shards.read(example)
        except Exception as error:
            raise self._broken(error) from None

    def _guarded(self, examples: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from examples
        except HybridVQError:
            raise
        # Whatever the network, the hub client or a reader of `datasets` raises.
        except Exception as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> DataError:
        reason = first_line(error).rstrip(". ")
        return machine_fault(error) or DataError(
            f"{self.location} cannot be read any further ({reason}); check the network and its shards, then resume"
        )


class StreamedImages(Images):
    """The first images of a stream, in memory."""

    def __init__(self, stream: Stream, pictures: Iterator[np.ndarray]) -> None:
        """Keep all of `pictures`, each (H, W, 3) uint8.

        Raises:
            DataError: there is none, or they take over 1 GiB and twice what as many photographs do.
        """
        self.name, self.split, self.size = stream.name, stream.split, stream.size
        self._memory = PixelMemory()
        self._count = taken = 0
        while chunk := list(itertools.islice(pictures, 32)):
            self._memory.extend(chunk)
            self._count += len(chunk)
            taken += sum(picture.nbytes for picture in chunk)
            if taken > max(MEMORY_BUDGET, 2 * expected_bytes(self._count, self.size)):
                raise DataError(
                    f"the first {self._count} images of {stream.location}, much longer than wide, take "
                    f"{taken / 2**30:.1f} GiB of memory; give a smaller limit or size"
                )
        if not self._count:
            raise DataError(f"{stream.location} has no readable image in its {self.split} split; give another data set")
        self.skipped = stream.skipped
        self.fingerprint = fingerprint([stream.fingerprint, str(self._count)])

    def __len__(self) -> int:
        return self._count

    def pixels(self, index: int) -> np.ndarray:
        return self._memory[index]


def open_stream(
    data: str, split: Split, *, size: int, shuffle_buffer: int = 1000, workers: int = 0, skip_unreadable: bool = False
) -> Stream:
    """Open one split of a data set to be read as a stream.

    What `data` may be:

    - a parquet file, or a folder of them, with a column `image` or `img` of encoded images;
    - a folder of tar files in the WebDataset layout, such as train-000.tar and test-000.tar, or one tar file;
    - the id of a hub data set.

    Args:
        data: one of the above.
        split: "train" or "test". Sets without a test split hold out 10% by a hash.
        size: short side to which images are resized, in pixels.
        shuffle_buffer: see `Stream`.
        workers: see `Stream`.
        skip_unreadable: leave out images that cannot be decoded.

    Raises:
        ConfigError: a number is out of range, or the data cannot be streamed.
        DataError: the data cannot be found or read.
    """
    check_choice(split, size)
    if shuffle_buffer < 1:
        raise ConfigError(f"the shuffle buffer of {shuffle_buffer} images must hold at least 1")
    if workers < 0:
        raise ConfigError(f"the number of workers is {workers}; it must be at least 0")
    path = Path(os.path.expanduser(data))
    try:
        shards = _open_path(path, split) if data and path.exists() else None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its name and permissions") from None
    except RuntimeError as error:
        raise machine_fault(error) or error from None
    if shards is None:
        if not looks_like_hub_id(data):
            raise ConfigError(
                f"'{data}' cannot be streamed: it is neither an existing path nor a hub id such as 'uoft-cs/cifar10'; "
                "give one of those"
            )
        shards = hub_shards(data, split)
    return Stream(shards, split, size, shuffle_buffer=shuffle_buffer, workers=workers, skip_unreadable=skip_unreadable)


def _open_path(path: Path, split: Split) -> Shards:
    if path.is_dir() and not is_mini_imagenet(path):
        found = list_folder(path)
        parquet, tar = parquet_of(path, found), found.tar
        if tar and not parquet:
            note_left_out(path, "tar", found.images)
    else:
        parquet, tar = ([path] if path.suffix.lower() == end else [] for end in (".parquet", ".tar"))
    if parquet:
        return parquet_shards(path, parquet, split)
    if tar:
        return tar_shards(path, tar, split)
    raise ConfigError(
        f"{path} has no .parquet or .tar files to stream; give such a file or folder, or leave out --stream"
    )
