"""Shards made by worker processes of this machine."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

import torch

from hybridvq.bulk.shards import Job, ShardMaker
from hybridvq.devices import count_devices
from hybridvq.errors import HybridVQError

_job: Job
_device: str
_maker: ShardMaker | None = None


def default_workers(device: torch.device) -> int:
    """One worker for each thread that torch may use, or for each accelerator of that kind."""
    if device.type == "cpu":
        return torch.get_num_threads()
    return 1 if device.index is not None else count_devices(device.type)


def devices(workers: int, device: torch.device) -> list[str]:
    """Where each worker computes; several may share an accelerator."""
    if device.type == "cpu" or device.index is not None:
        return [str(device)] * workers
    return [f"{device.type}:{i % count_devices(device.type)}" for i in range(workers)]


def make_shards(job: Job, todo: list[int], workers: int, device: torch.device) -> Iterator[int]:
    """Make the shards `todo` and give the number of images of each as it is finished; one worker is this process.

    Raises:
        HybridVQError: a shard cannot be made, or a worker was killed; finished shards stay.
    """
    if workers == 1:
        yield from map(ShardMaker(job, devices(1, device)[0]), todo)
        return
    context, others = get_context("spawn"), set(active_children())
    # Not an argument of `prepare_worker`: a worker would have to read it before the next one is started.
    given = context.SimpleQueue()
    with ProcessPoolExecutor(workers, context, initializer=prepare_worker, initargs=(given,)) as pool:
        try:
            with interrupts_held():
                threading.Thread(target=give, args=(given, job, devices(workers, device)), daemon=True).start()
                tasks = [pool.submit(make_shard, shard) for shard in todo]
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool as error:
            raise HybridVQError(
                "a worker process was killed, most often because memory ran out; lower --workers, and the "
                "same command continues from the finished shards"
            ) from error
        except (KeyboardInterrupt, GeneratorExit):
            for process in set(active_children()) - others:
                process.kill()  # shards are whole at any moment
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C while inside, and for ever in processes started inside.

    Ctrl-C reaches every process of the terminal, and only the parent may handle it: a worker would print a traceback,
    even before its first line of ours.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def give(given: Any, job: Job, devices: list[str]) -> None:
    for device in devices:
        given.put((job, device))


def prepare_worker(given: Any) -> None:
    """Prepare a worker process; its model is loaded with the first shard, where an error can be reported."""
    global _job, _device
    threading.Thread(target=end_with_parent, daemon=True).start()
    _job, _device = given.get()


def end_with_parent() -> None:
    """Without this, workers whose parent was killed would write on beside those of the next call."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def make_shard(shard: int) -> int:
    global _maker
    if _maker is None:
        _maker = ShardMaker(_job, _device)
    return _maker(shard)
