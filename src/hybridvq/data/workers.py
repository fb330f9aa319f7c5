"""Batches made by processes of their own, whose failures are sentences."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils import signal_handling

from hybridvq.data.batches import TrainBatches, to_tensor
from hybridvq.data.machine import machine_fault
from hybridvq.data.parquet import first_line
from hybridvq.errors import DataError


class BatchLoader:
    """The batches of a run from number `first` on, in order, whatever the number of workers.

    Its length is that of the whole run: Lightning counts the batches before a resume as done.

    Args:
        batches: a set whose items are whole batches; with workers, `TrainBatches`.
        workers: processes that read and decode; 0 for none of their own.
    """

    def __init__(self, batches: Any, first: int = 0, workers: int = 0) -> None:
        self.batches, self.first, self.workers = batches, first, workers

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches.

        Raises:
            DataError: an image cannot be decoded, or a worker was lost.
        """
        steps = range(self.first, len(self))
        if not self.workers:
            yield from (self.batches[step] for step in steps)
            return
        for crops in load(_Crops(self.batches), self.workers, steps):
            yield to_tensor(crops)


class _Crops(Dataset[Tensor | DataError]):
    """The batches as bytes; a failure is an item, since a data loader turns what is raised into a traceback."""

    def __init__(self, batches: TrainBatches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Tensor | DataError:
        try:
            return share(self.batches.crops(step))
        except DataError as error:
            return error


def share(crops: np.ndarray) -> Tensor:
    """In a worker, put crops in shared memory: the queue would do so too, but not tell if it fails."""
    tensor = torch.from_numpy(crops)
    try:
        return tensor.share_memory_() if get_worker_info() else tensor
    except RuntimeError as error:
        raise machine_fault(error) or error from None


def load(items: Dataset[Any] | IterableDataset[Any], workers: int, order: Sequence[int] | None = None) -> Iterator[Any]:
    """Yield what a data loader does, in this `order`; raises DataError if it cannot start its workers or loses one."""
    before = signal.getsignal(signal.SIGCHLD)
    if getattr(before, "__module__", None) == signal_handling.__name__:  # of another loader of this process
        before = signal.SIG_DFL
    try:
        if workers:
            multiprocessing.Lock()  # a loader that fails to make its own leaves a traceback behind
        loaded = iter(DataLoader(items, batch_size=None, num_workers=workers, sampler=order))
    except OSError as error:
        raise DataError(
            f"the data workers cannot be started ({error.strerror or error}); let /dev/shm be written or pass "
            "--workers 0"
        ) from None
    finally:
        # The loader's own handler would raise amid whatever the main thread does, instead of when a batch is asked for.
        if workers and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
    try:
        for item in loaded:
            if isinstance(item, DataError):
                raise item
            yield item
    except (RuntimeError, OSError, EOFError) as error:
        # What a worker itself raises starts with "Caught"; one that is gone may be met as a closed connection.
        if not workers or str(error).startswith("Caught"):
            raise
        raise DataError(
            f"a data worker was lost ({first_line(error)}), perhaps because memory ran out; give fewer --workers or, "
            "of a stream, a smaller --shuffle-buffer"
        ) from None
