"""Batches of a stream: what each holds, and how a run takes them up again."""

import multiprocessing
import multiprocessing.synchronize
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridvq.data import StreamLoader, TrainBatches, open_images, open_stream
from hybridvq.data import stream as stream_module
from hybridvq.data.stream_batches import StreamBatch, StreamBatches
from hybridvq.errors import ConfigError, DataError

from .shards import SIDE, numbers, write_parquet, write_set

# A machine may have fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def loader(folder: Path, steps: int, workers: int = 0, seed: int = 0, batch: int = 4, **options) -> StreamLoader:
    stream = open_stream(str(folder), "train", size=SIDE, shuffle_buffer=5, workers=workers)
    return StreamLoader(stream, batch, steps, seed, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path, "tar", [6, 4, 7, 5])


@pytest.mark.parametrize("workers", [0, 1])
def test_one_reader_shows_every_image_once_an_epoch(folder: Path, workers: int) -> None:
    order = [number for x in loader(folder, 22, workers) for number in numbers(x)]
    epochs = [order[at : at + 22] for at in range(0, 88, 22)]
    assert all(sorted(epoch) == list(range(22)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_process_ends_or_waits_for_another(folder: Path, world_size: int) -> None:
    seen: Counter[int] = Counter()
    for rank in range(world_size):
        batches = list(loader(folder, 66, 2, batch=6, rank=rank, world_size=world_size))
        assert [len(x) for x in batches] == [6 // world_size] * 66
        seen += Counter(number for x in batches for number in numbers(x))
    # 18 epochs; readers differ in pace while their shards differ in size, and shards are shared out anew each epoch.
    assert set(seen) == set(range(22))
    assert min(seen.values()) > 9
    assert max(seen.values()) < 36


def test_batches_are_tensors_of_the_range(folder: Path) -> None:
    (x,) = loader(folder, 1, batch=8)
    assert (x.shape, x.dtype, x.is_contiguous()) == ((8, 3, SIDE, SIDE), torch.float32, True)
    assert x.min() >= -1
    assert x.max() == 1


def test_crops_are_those_of_a_set_in_memory(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [9, 9])
    images = open_images(str(tmp_path), "train", size=SIDE)
    for rank in range(2):
        expected = TrainBatches(images, 8, 5, 3, rank, 2)
        for step, x in enumerate(loader(tmp_path, 5, seed=3, batch=8, rank=rank, world_size=2)):
            assert torch.equal(x, expected[step])


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_resumed_anywhere_the_batches_are_the_same(folder: Path, workers: int, rank: int, world_size: int) -> None:
    options = {"rank": rank, "world_size": world_size}
    whole, positions = loader(folder, 31, workers, **options), []
    batches = []
    for x in whole:
        batches.append(x)
        positions.append(list(whole.positions))
    assert any(epoch > 2 for epoch, _ in positions[-1])
    for first in (1, 2, 13, 30):
        again = loader(folder, 31, workers, first=first, positions=positions[first - 1], **options)
        rest = list(again)
        assert len(rest) == 31 - first
        assert all(torch.equal(a, b) for a, b in zip(rest, batches[first:], strict=True))
        assert again.positions == positions[-1]


def test_a_resume_decodes_nothing_again_and_no_earlier_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, read = [], []
    decode = stream_module.decode
    examples = stream_module.Stream.examples
    monkeypatch.setattr(stream_module, "decode", lambda data: decoded.append(data) or decode(data))

    def recorded(self, *arguments):
        for example in examples(self, *arguments):
            read.append(arguments[1])
            yield example

    monkeypatch.setattr(stream_module.Stream, "examples", recorded)
    list(loader(folder, 9, first=8, positions=[(1, 10)]))
    assert len(decoded) == 4
    assert read == [1] * 14


def test_numbers_that_cannot_be_used(folder: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 4 is not divisible by the 3 processes"):
        loader(folder, 1, world_size=3)
    with pytest.raises(ConfigError, match="shuffle buffer of 0"):
        open_stream(str(folder), "train", size=SIDE, shuffle_buffer=0)
    with pytest.raises(ConfigError, match="number of workers is -1"):
        open_stream(str(folder), "train", size=SIDE, workers=-1)
    with pytest.raises(ConfigError, match="the split 'val'"):
        open_stream(str(folder), "val", size=SIDE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="limit of 0"):
        open_stream(str(folder), "test", size=SIDE).take(0)


def test_shuffling_draws_from_the_seed_and_nothing_else(folder: Path) -> None:
    first = [numbers(x) for x in loader(folder, 5)]
    np.random.seed(5)
    torch.manual_seed(5)
    assert [numbers(x) for x in loader(folder, 5)] == first
    assert [numbers(x) for x in loader(folder, 5, seed=1)] != first


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the data loader look after its workers ten times per second, and not every five."""
    iterator = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    monkeypatch.setattr(iterator._try_get_data, "__defaults__", (0.1,))
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)


def test_images_come_from_workers_as_bytes(folder: Path) -> None:
    stream = open_stream(str(folder), "train", size=SIDE)
    (batch,) = StreamBatches(stream, 4, 1, 0, 0, 1, 0, [(0, 0)])
    assert isinstance(batch, StreamBatch)
    assert (batch.crops.dtype, batch.crops.shape) == (torch.uint8, (4, SIDE, SIDE, 3))


@pytest.mark.usefixtures("impatient")
def test_a_lost_worker_is_told_when_a_batch_is_asked_for(folder: Path) -> None:
    batches = iter(loader(folder, 400, 2))
    next(batches)
    worker = multiprocessing.active_children()[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()  # nothing is raised here, amid what the process does between batches
    with pytest.raises(
        DataError, match=r"^a data worker was lost \(DataLoader worker .*\), .* fewer --workers"
    ) as caught:
        list(batches)
    assert "\n" not in str(caught.value)


def test_workers_that_cannot_be_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    batches = loader(folder, 4, 2)
    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refused)
    with pytest.raises(DataError, match=r"workers cannot be started \(Read-only file system\); let /dev/shm"):
        list(batches)


@pytest.mark.usefixtures("impatient")
def test_shared_memory_that_cannot_be_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share, least = torch.Tensor.share_memory_, 4

    def refused(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim >= least:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left (28)")
        return share(tensor)

    monkeypatch.setattr(torch.Tensor, "share_memory_", refused)
    message = r"^shared memory cannot be used \(.*No space left \(28\)\); let /dev/shm be written"
    assert len(list(loader(folder, 4))) == 4
    with pytest.raises(DataError, match=message):
        list(loader(folder, 4, 1))
    batches, least = loader(folder, 4), 0
    with pytest.raises(DataError, match=message):
        list(batches)
    with pytest.raises(DataError, match=message):
        loader(folder, 4)
