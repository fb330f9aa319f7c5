"""Workers that decode a map-style set: the same batches, and failures that are one sentence."""

import os
import signal

import pytest
import torch
from torch.utils.data._utils import signal_handling

import tiny
from hybridvq import ConfigError, DataError, open_images
from hybridvq.data import BatchLoader, TrainBatches
from hybridvq.data.photos import PhotoTiles
from runs import run, weights

# A machine may have fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def batches(images=None, steps=5):
    return TrainBatches(images or tiny.images(), 4, steps, seed=3)


def test_batches_are_the_same_with_any_number_of_workers():
    expected = [batches()[step] for step in range(2, 5)]
    for workers in (0, 1, 2):
        loader = BatchLoader(batches(), 2, workers)
        assert len(loader) == 5
        assert all(torch.equal(a, b) for a, b in zip(loader, expected, strict=True))


class Failing(PhotoTiles):
    """The sample photographs, of which reading the 13th fails, or kills the worker."""

    kill, read = False, 0

    def crop_at(self, index, draw):
        self.read += draw is not None
        if self.read > 12:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("x.png cannot be read as an image (no such file)")
        return super().crop_at(index, draw)


def failing(kill):
    images = Failing("train", tiny.SIZE)
    images.kill, images.workers = kill, 1
    return images


@pytest.mark.parametrize("kill", [False, True])
def test_what_a_worker_cannot_do_is_one_sentence(tmp_path, kill):
    message = r"a data worker was lost .*; give fewer --workers" if kill else r"^x\.png cannot be read as an image"
    with pytest.raises(DataError, match=message) as caught:
        run(tmp_path / "run", images=failing(kill))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_with_workers_is_the_run_without_and_resumes_to_the_bit(tmp_path):
    recipe = tiny.recipe(checkpoint_every=3)
    run(tmp_path / "none", recipe)
    with pytest.raises(DataError):
        run(tmp_path / "two", recipe, images=cut_at(8 * 8))
    images = open_images("photos", "train", size=tiny.SIZE, workers=2)
    assert images.workers == 2
    run(tmp_path / "two", recipe, images=images, resume=True)
    assert weights(tmp_path / "two") == weights(tmp_path / "none")


def cut_at(count):
    images = failing(False)
    images.read = 12 - count
    return images


def test_workers_are_counted():
    with pytest.raises(ConfigError, match="the number of workers is -1; it must be at least 0"):
        open_images("photos", "train", size=16, workers=-1)


def test_the_handler_of_another_loader_does_not_stay_to_raise_later():
    """It raises when a worker of any loader dies, amid whatever the main thread does then."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal_handling._SIGCHLD_handler_set = False
        signal_handling._set_SIGCHLD_handler()
        assert callable(signal.getsignal(signal.SIGCHLD))
        assert len(list(BatchLoader(batches(), 0, 1))) == 5
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)
