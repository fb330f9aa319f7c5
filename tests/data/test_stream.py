"""Streams: what is read, how it is shared out and shuffled, what is held out."""

import gc
import itertools
import pickle
import shutil
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader, IterableDataset

from hybridvq.data import Stream, open_images, open_stream
from hybridvq.data import shards as shards_module
from hybridvq.errors import DataError

from .shards import SIDE, encoded, write_parquet, write_set, write_tar

# A machine may have fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def opened(data: Path | str, split: str = "train", **options) -> Stream:
    return open_stream(str(data), split, size=SIDE, **{"shuffle_buffer": 5} | options)  # type: ignore[arg-type]


def shown(stream: Stream, example: dict) -> int:
    picture = stream.picture(example)
    assert isinstance(picture, np.ndarray)
    return int(np.median(picture))


class OneEpoch(IterableDataset):
    def __init__(self, *arguments) -> None:
        self.stream, *self.arguments = arguments

    def __iter__(self):
        for example in self.stream.examples(*self.arguments):
            yield shown(self.stream, example)


def part(stream: Stream, seed: int = 0, epoch: int = 0, rank: int = 0, world_size: int = 1) -> list[int]:
    """The images of an epoch that one process reads, with all its workers."""
    epoch_of_rank = OneEpoch(stream, seed, epoch, rank, world_size)
    return list(DataLoader(epoch_of_rank, batch_size=None, num_workers=stream.workers_of(world_size)))


def taken(stream: Stream, limit: int = 1000) -> list[int]:
    images = stream.take(limit)
    return [int(np.median(images.pixels(i))) for i in range(len(images))]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "counts"), [("tar", [7]), ("tar", [8, 3]), ("tar", [4, 1, 6, 2, 5, 9, 3]), ("parquet", [9, 6])]
)
def test_the_parts_of_an_epoch_are_the_whole_once(tmp_path: Path, kind: str, counts: list[int], ranks: int) -> None:
    folder = write_set(tmp_path, kind, counts)
    for workers in range(4):
        stream = opened(folder, workers=workers)
        for epoch in (0, 3):
            parts = [part(stream, 1, epoch, rank, ranks) for rank in range(ranks)]
            assert sorted(itertools.chain(*parts)) == list(range(sum(counts)))
            assert all(parts)


def test_no_worker_is_without_a_shard(tmp_path: Path) -> None:
    stream = opened(write_set(tmp_path, "tar", [3] * 5), workers=4)
    assert [stream.workers_of(world_size) for world_size in (1, 2, 3, 5, 6)] == [4, 2, 1, 1, 4]


def test_the_order_follows_from_the_seed_and_the_epoch(tmp_path: Path) -> None:
    folder = write_set(tmp_path, "tar", [10] * 4)
    first = part(opened(folder))
    assert part(opened(folder)) == first
    assert part(opened(folder), seed=1) != first
    assert part(opened(folder), epoch=1) != first
    assert part(opened(folder), seed=1, epoch=1) not in (part(opened(folder), seed=1), part(opened(folder), epoch=1))


def test_a_larger_buffer_shuffles_farther(tmp_path: Path) -> None:
    folder = write_set(tmp_path, "tar", [60])

    def distance(buffer: int) -> float:
        order = part(opened(folder, shuffle_buffer=buffer))
        return float(np.abs(np.array(order) - np.arange(60)).mean())

    assert distance(1) == 0
    assert 0 < distance(5) < 10 < distance(60)


def test_one_large_file_is_cut_into_row_groups(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test.parquet", [200])
    write_parquet(tmp_path / "train.parquet", range(22), group=4)
    parts = [part(opened(tmp_path), rank=rank, world_size=2) for rank in range(2)]
    groups = [{number // 4 for number in numbers} for numbers in parts]
    assert not groups[0] & groups[1], "whole row groups go to one process"


def test_files_beyond_the_number_of_pieces_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_PIECES", 3)
    stream = opened(write_set(tmp_path, "parquet", [20, 12, 4, 8]))
    assert stream.workers_of(1) == 0
    assert opened(tmp_path, workers=9).workers_of(1) == 4
    assert sorted(part(stream)) == list(range(44))


@pytest.mark.parametrize("test", ["test-0", "val-0", "validation-00000-of-00001"])
def test_tar_files_are_split_by_name(tmp_path: Path, test: str) -> None:
    write_tar(tmp_path / "train-0.tar", range(5))
    write_tar(tmp_path / f"{test}.tar", range(7, 9))
    assert sorted(part(opened(tmp_path))) == [0, 1, 2, 3, 4]
    assert taken(opened(tmp_path, "test")) == [7, 8]
    assert opened(tmp_path).name == f"{tmp_path.name} (tar)"


def test_members_of_several_kinds(tmp_path: Path) -> None:
    write_tar(tmp_path / "test.tar", range(2))
    write_tar(tmp_path / "train.tar", range(9), ("png", "webp", "WEBP"))
    assert sorted(part(opened(tmp_path))) == list(range(9))


def test_rows_are_held_out_as_without_streaming(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", range(30))
    write_parquet(tmp_path / "b.parquet", range(30, 50))
    for split in ("train", "test"):
        images = open_images(str(tmp_path), split, size=SIDE)  # type: ignore[arg-type]
        expected = [int(np.median(images.pixels(i))) for i in range(len(images))]
        assert taken(opened(tmp_path, split)) == expected
    assert 1 <= len(taken(opened(tmp_path, "test"))) < 15
    assert taken(opened(tmp_path / "a.parquet", "test"))


def test_tar_members_are_held_out_by_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "x.tar", range(60))
    write_tar(tmp_path / "b" / "x.tar", range(60))
    write_tar(tmp_path / "b" / "y.tar", range(60, 70))
    train, test = (taken(opened(tmp_path / "a" / "x.tar", split)) for split in ("train", "test"))
    assert sorted(train + test) == list(range(60))
    assert 1 <= len(test) < 20
    assert set(test) <= set(taken(opened(tmp_path / "b", "test"))), "another file moves none"


def test_the_first_images_are_taken(tmp_path: Path) -> None:
    write_set(tmp_path, "tar", [5, 5])
    stream = opened(tmp_path)
    assert taken(stream, 7) == list(range(7))
    images = stream.take(4)
    assert (len(images), images.size, images.split, images.name) == (4, SIDE, "train", stream.name)
    assert images.crop(2, None).shape == (SIDE, SIDE, 3)
    assert len({stream.take(2).fingerprint, images.fingerprint, stream.fingerprint}) == 3
    assert stream.take(4).fingerprint == images.fingerprint


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_fingerprint_follows_names_and_sizes(tmp_path: Path, kind: str) -> None:
    folder = write_set(tmp_path / "a", kind, [4, 4])
    first = opened(folder).fingerprint
    shutil.copytree(folder, tmp_path / "b")
    assert opened(tmp_path / "b", workers=2, shuffle_buffer=9).fingerprint == first
    assert opened(folder, "test").fingerprint != first
    (tmp_path / "b" / f"train-000.{kind}").rename(tmp_path / "b" / f"train-009.{kind}")
    assert opened(tmp_path / "b").fingerprint != first
    write_set(folder, kind, [40, 4])
    assert opened(folder).fingerprint != first


def test_tar_files_are_only_streamed(tmp_path: Path) -> None:
    write_set(tmp_path, "tar", [4])
    for data in (tmp_path, tmp_path / "train-000.tar"):
        with pytest.raises(DataError, match="which can only be read as a stream; add --stream"):
            open_images(str(data), "train", size=SIDE)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_pickled_stream_reads_the_same(tmp_path: Path, kind: str) -> None:
    stream = opened(write_set(tmp_path, kind, [9, 8]))
    assert part(pickle.loads(pickle.dumps(stream))) == part(stream)


def test_images_stay_encoded_until_they_are_shown(tmp_path: Path) -> None:
    stream = opened(write_set(tmp_path, "parquet", [6]))
    contents = {example["bytes"] for example in stream.examples(0, 0, 0, 1)}
    assert contents == {encoded(number) for number in range(6)}


def test_a_shard_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_PIECES", 1)
    generator = np.random.default_rng(0)
    path = write_parquet(tmp_path / "one.parquet", (generator.bytes(20_000) for _ in range(1000)), group=50)
    start = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - start for _ in opened(path).examples(0, 0, 0, 1)]
    assert len(held) == 1000
    assert 0 < max(held) < 10e6 < path.stat().st_size / 2


def test_footers_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are let go at once: the garbage collector may take long to come by."""
    footers, read = [], shards_module.read_footer

    def noted(file: Path) -> object:
        footer = read(file)
        footers.append(weakref.ref(footer))
        return footer

    monkeypatch.setattr(shards_module, "read_footer", noted)
    folder = write_set(tmp_path, "parquet", [9, 8, 7])
    gc.disable()
    try:
        stream = opened(folder)
        assert [footer() for footer in footers] == [None] * 3
    finally:
        gc.enable()
    assert sorted(part(stream)) == list(range(24))


def test_workers_read_after_the_process_that_started_them_has(tmp_path: Path) -> None:
    stream = opened(write_set(tmp_path, "parquet", [9, 8, 7]), workers=2)
    assert taken(stream) == list(range(24))
    assert sorted(part(stream)) == list(range(24))
