"""Disks that fill up, folders that may not be written and data that goes away while a run is on its way.

Each time one sentence says so, the last checkpoint is whole, and the run continues from it as if nothing had been.
"""

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

import hybridvq.data.images as data_images
import hybridvq.training.folder as run_folder
import tiny
from hybridvq import DataError, Tokenizer, TrainingError, open_images
from hybridvq.training.module import TokenizerTraining
from runs import CHECKPOINT, read_checkpoint, run, weights

resource = pytest.importorskip("resource")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


@pytest.fixture
def at_step(monkeypatch):
    """Have something happen once, before the training step of that number."""
    original = TokenizerTraining.training_step

    def arrange(number, happen):
        waiting = [happen]

        def step(self, *batch):
            if self.global_step == number and waiting:
                waiting.pop()()
            return original(self, *batch)

        monkeypatch.setattr(TokenizerTraining, "training_step", step)

    return arrange


@pytest.fixture
def file_size():
    """Limit the size of every file that this process writes: the system itself refuses the rest."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


def goes_on(folder, whole, **options):
    """The checkpoint of step 5 is there alone, and the rest of the run gives the weights of one that met nothing."""
    assert read_checkpoint(folder)["global_step"] == 5
    assert [path.name for path in (folder / CHECKPOINT).parent.iterdir()] == ["last.ckpt"]
    run(folder, resume=True, **options)
    assert weights(folder) == weights(whole)


def test_a_checkpoint_that_does_not_fit(tmp_path, whole, at_step, file_size):
    at_step(7, lambda: file_size(20_000))
    with pytest.raises(TrainingError) as caught:
        run(tmp_path)
    file_size(resource.RLIM_INFINITY)
    assert "last.ckpt cannot be written (File too large); make room there and resume" in one_sentence(caught)
    goes_on(tmp_path, whole)


def test_a_model_that_does_not_fit(tmp_path, whole, monkeypatch, file_size):
    save = Tokenizer.save_pretrained
    monkeypatch.setattr(Tokenizer, "save_pretrained", lambda *words: file_size(20_000) or save(*words))
    with pytest.raises(TrainingError) as caught:
        run(tmp_path)
    file_size(resource.RLIM_INFINITY)
    monkeypatch.undo()
    assert "model cannot be written" in one_sentence(caught)
    assert not list(tmp_path.glob("model*"))
    assert read_checkpoint(tmp_path)["global_step"] == tiny.STEPS
    monkeypatch.setattr(TokenizerTraining, "training_step", None)
    run(tmp_path, resume=True)
    assert weights(tmp_path) == weights(whole)


def test_a_disk_that_is_full_under_tensorboard(tmp_path, whole, at_step, monkeypatch, capfd):
    """Its thread meets that first, and the run stops at the next number that is to be shown."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at_step(7, lambda: monkeypatch.setattr(RecordWriter, "write", refuse))
    with pytest.raises(TrainingError) as caught:
        run(tmp_path)
    assert "had to stop ([Errno 28] No space left on device)" in one_sentence(caught)
    assert capfd.readouterr() == ("", "")
    monkeypatch.undo()
    run(tmp_path, resume=True)
    assert weights(tmp_path) == weights(whole)


def test_a_disk_that_turns_read_only(tmp_path, whole, at_step, monkeypatch):
    write = run_folder.write_whole

    def refuse(path, content):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    at_step(7, lambda: monkeypatch.setattr(run_folder, "write_whole", refuse))
    with pytest.raises(TrainingError) as caught:
        run(tmp_path)
    assert "last.ckpt cannot be written (Read-only file system); make room there and resume" in one_sentence(caught)
    monkeypatch.setattr(run_folder, "write_whole", write)
    goes_on(tmp_path, whole)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_locked(tmp_path, whole, at_step):
    folder = (tmp_path / CHECKPOINT).parent
    at_step(7, lambda: folder.chmod(0o500))
    with pytest.raises(TrainingError) as caught:
        run(tmp_path)
    folder.chmod(0o700)
    assert "last.ckpt cannot be written (Permission denied)" in one_sentence(caught)
    goes_on(tmp_path, whole)


def test_data_that_goes_away(tmp_path, at_step, monkeypatch):
    """A set too large for memory is decoded as it is used; its folder is removed, and comes back."""
    monkeypatch.setattr(data_images, "MEMORY_BUDGET", 0)
    here, there = tmp_path / "images", tmp_path / "elsewhere"
    for number in range(40):
        path = here / ("test" if number % 4 == 0 else "train") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    images = open_images(str(here), "train", size=tiny.SIZE)
    run(tmp_path / "whole", images=images)
    at_step(7, lambda: shutil.move(here, there))
    with pytest.raises(DataError) as caught:
        run(tmp_path / "cut", images=images)
    assert "png cannot be read as an image (no such file); " in one_sentence(caught)
    shutil.move(there, here)
    goes_on(tmp_path / "cut", tmp_path / "whole", images=images)
