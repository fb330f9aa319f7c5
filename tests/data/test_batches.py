import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hybridvq.data import EvalBatches, Images, TrainBatches
from hybridvq.errors import ConfigError


class Numbered(Images):
    """Image i is everywhere i, but for a mark in its top left corner that shows mirroring."""

    name, split, size, fingerprint = "numbered", "train", 4, ""

    def __init__(self, count: int) -> None:
        self.count = count
        self.skipped = []

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> np.ndarray:
        picture = np.full((6, 9, 3), index, dtype=np.uint8)
        picture[:, 0] = 255
        return picture


def numbers(batch: torch.Tensor) -> list[int]:
    return ((batch[:, 0, 0].median(dim=1).values + 1) * 127.5).round().int().tolist()


def test_shape_type_and_range() -> None:
    batch = TrainBatches(Numbered(10), 8, 1, seed=0)[0]
    assert batch.shape == (8, 3, 4, 4)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous()
    assert batch.min() >= -1
    assert batch.max() <= 1


def test_values_map_0_and_255_to_the_ends() -> None:
    (batch,) = EvalBatches(Numbered(1), 1)
    assert batch.unique().tolist() == [-1.0]


@pytest.mark.parametrize(("count", "size"), [(10, 4), (7, 7), (3, 8), (1, 5), (12, 6)])
def test_every_epoch_shows_every_image_once(count: int, size: int) -> None:
    steps = count * 2
    batches = TrainBatches(Numbered(count), size, steps, seed=3)
    order = [number for step in range(steps) for number in numbers(batches[step])]
    epochs = [order[at : at + count] for at in range(0, count * size, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count > 3:
        assert epochs[0] != epochs[1]


def test_a_batch_depends_on_its_number_alone() -> None:
    fresh = TrainBatches(Numbered(10), 4, 20, seed=1)
    used = TrainBatches(Numbered(10), 4, 1000, seed=1)
    for step in (19, 3, 0, 7, 19):
        assert torch.equal(used[step], fresh[step])
        assert torch.equal(TrainBatches(Numbered(10), 4, 20, seed=1)[step], fresh[step])


def test_the_seed_changes_order_and_crops() -> None:
    one, two = (TrainBatches(Numbered(50), 16, 1, seed=seed) for seed in (0, 1))
    assert one.indices(0).tolist() != two.indices(0).tolist()
    single = [TrainBatches(Numbered(1), 64, 1, seed=seed)[0] for seed in (0, 1)]
    assert not torch.equal(*single)


def test_augmentation_moves_and_mirrors() -> None:
    batch = TrainBatches(Numbered(1), 64, 1, seed=0)[0]
    marked = (batch[:, 0] == 1).any(dim=1)
    assert marked[:, 0].any()
    assert marked[:, -1].any()
    assert (~marked).all(dim=1).any()


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_together_make_the_batch(world_size: int) -> None:
    whole = TrainBatches(Numbered(10), 8, 5, seed=0)
    parts = [TrainBatches(Numbered(10), 8, 5, 0, rank, world_size) for rank in range(world_size)]
    for step in range(5):
        assert torch.equal(torch.cat([part[step] for part in parts]), whole[step])
        assert len(parts[0][step]) == 8 // world_size


def test_length_and_end() -> None:
    batches = TrainBatches(Numbered(3), 2, 5, seed=0)
    assert len(batches) == 5
    assert len(list(batches)) == 5
    for step in (-1, 5):
        with pytest.raises(IndexError):
            batches[step]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5, "world_size": 2}, "batch_size 5 is not divisible by the 2 processes"),
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"steps": -1}, "steps -1"),
        ({"seed": -1}, "seed -1"),
        ({"rank": 2, "world_size": 2}, "rank 2 must be below world_size 2"),
    ],
)
def test_numbers_that_cannot_be_used(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainBatches(Numbered(3), **{"batch_size": 4, "steps": 1, "seed": 0, **options})


@pytest.mark.parametrize(("limit", "lengths"), [(None, [4, 4, 2]), (4, [4]), (5, [4, 1]), (99, [4, 4, 2])])
def test_eval_shows_every_image_once_in_order(limit: int | None, lengths: list[int]) -> None:
    batches = EvalBatches(Numbered(10), 4, limit)
    assert [len(batch) for batch in batches] == lengths
    assert len(batches) == len(lengths)
    assert [number for batch in batches for number in numbers(batch)] == list(range(sum(lengths)))


def test_eval_refuses_a_limit_of_none() -> None:
    with pytest.raises(ConfigError, match="limit 0"):
        EvalBatches(Numbered(10), 4, 0)


def test_workers_and_pickling_change_nothing() -> None:
    batches = TrainBatches(Numbered(10), 4, 4, seed=0)
    expected = [batches[step] for step in range(4)]
    copied = pickle.loads(pickle.dumps(batches))
    loaded = DataLoader(copied, batch_size=None, num_workers=1, multiprocessing_context="fork")
    for got, wanted in zip(loaded, expected, strict=True):
        assert torch.equal(got, wanted)


def test_importing_is_light() -> None:
    heavy = "{'datasets', 'skimage', 'sklearn', 'lightning', 'matplotlib', 'pyarrow'}"
    code = f"import sys, hybridvq.data; print(sorted({heavy} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
