"""Resuming a run: killed, finished, damaged or somebody else's. Runs are tiny but real."""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace

import pytest
import torch

import tiny
from hybridvq import ConfigError, ModelError
from hybridvq.data.photos import PhotoTiles
from hybridvq.quantizers.codebook import CodeVectors
from hybridvq.training.folder import own
from hybridvq.training.module import TokenizerTraining
from hybridvq.writing import PARTIAL
from runs import CHECKPOINT, read_checkpoint, run, weights


class Mortal(PhotoTiles):
    """The sample photographs, until `batches` batches of 8 have been read; then the process is killed."""

    batches = 0

    def crop_at(self, index, draw):
        if draw is not None:
            if self.batches == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.batches -= 1 / 8
        return super().crop_at(index, draw)


def train_and_die(recipe, folder, batches, threads):
    torch.set_num_threads(threads)
    images = Mortal("train", tiny.SIZE)
    images.batches = batches
    run(folder, recipe, images, resume=True)


def train_slowly(recipe, folder, begun):
    torch.set_num_threads(1)
    begun.set()
    run(folder, recipe, resume=True)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hybridvq.training", "tiny"])
    return context


@pytest.mark.parametrize(
    "name", [name for name in tiny.MODELS | tiny.COUNTING if name not in ("vector-uniform", "frequency-projected")]
)
def test_a_killed_run_resumes_to_the_bit(tmp_path, processes, name, monkeypatch):
    placed = []
    place = {kind: kind.place for kind in CodeVectors.__subclasses__()}
    for kind, original in place.items():
        monkeypatch.setattr(kind, "place", lambda s, v, w, original=original: placed.append(w) or original(s, v, w))
    recipe = tiny.recipe(name)
    _, whole = run(tmp_path / "whole", recipe)
    restarts = len(placed) - 1
    assert restarts >= 2 or name in ("fsq", "gaussian", "identity", "hybrid-scalar")

    # Once between two checkpoints; the first also before any checkpoint, and again just before the next one.
    for batches, reached in ((3, None), (7, 5), (4, 5)) if name == "vector" else ((7, 5),):
        process = processes.Process(
            target=train_and_die, args=(recipe, tmp_path / "cut", batches, torch.get_num_threads())
        )
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert (read_checkpoint(tmp_path / "cut")["global_step"] if reached else None) == reached
    _, resumed = run(tmp_path / "cut", recipe, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert resumed.train_mse == whole.train_mse
    assert resumed.train_quantization == whole.train_quantization
    assert resumed.tests == whole.tests
    assert [test["step"] for test in whole.tests] == [6, 12, 18, 20]
    assert len(whole.train_mse) == tiny.STEPS


def test_bfloat16_resumes_to_the_bit(tmp_path, processes):
    recipe = tiny.recipe(precision="bf16-mixed")
    run(tmp_path / "whole", recipe)
    process = processes.Process(target=train_and_die, args=(recipe, tmp_path / "cut", 12, torch.get_num_threads()))
    process.start()
    process.join(60)
    assert read_checkpoint(tmp_path / "cut")["global_step"] == 10
    run(tmp_path / "cut", recipe, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_killed_at_any_moment_the_checkpoint_is_whole(tmp_path, processes):
    """Writing a checkpoint after every step, most kills fall into a write."""
    recipe = tiny.recipe(checkpoint_every=1, steps=400, eval_every=400)
    moments, reached, written = random.Random(0), [], 0
    for _ in range(4):
        begun = processes.Event()
        process = processes.Process(target=train_slowly, args=(recipe, tmp_path, begun))
        process.start()
        assert begun.wait(60)
        wait_for_a_checkpoint(tmp_path / CHECKPOINT, newer_than=written)
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
        process.join(60)
        state, written = read_checkpoint(tmp_path), (tmp_path / CHECKPOINT).stat().st_mtime_ns
        history = state["callbacks"]["TokenizerRecorder"]
        assert len(history["train_mse"]) == state["global_step"]
        assert all(value.isfinite().all() for value in state["state_dict"].values())
        reached.append(state["global_step"])
    assert reached == sorted(reached)
    assert reached[-1] > reached[0] > 0


def wait_for_a_checkpoint(path, newer_than):
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_mtime_ns > newer_than):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_checkpoint_after_the_last_step_is_enough_for_the_model(tmp_path):
    """Killed between the last checkpoint and the model, the run is finished without another step."""
    _, history = run(tmp_path)
    whole = weights(tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    for place in (tmp_path, tmp_path / "checkpoints"):
        (place / PARTIAL.format("a")).mkdir()
        (place / PARTIAL.format("b")).write_bytes(b"cut off")
    _, again = run(tmp_path, resume=True)
    assert weights(tmp_path) == whole
    assert again == history
    assert not list(tmp_path.rglob(PARTIAL.format("*")))


def test_a_finished_run_is_returned_at_once(tmp_path, monkeypatch):
    tokenizer, history = run(tmp_path)
    before = weights(tmp_path), (tmp_path / CHECKPOINT).stat().st_mtime_ns
    (tmp_path / "model" / "codec.safetensors").write_bytes(b"tables that were fitted since")

    def no_step(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(TokenizerTraining, "training_step", no_step)
    again, same = run(tmp_path, resume=True)
    assert same == history
    assert (weights(tmp_path), (tmp_path / CHECKPOINT).stat().st_mtime_ns) == before
    assert (tmp_path / "model" / "codec.safetensors").exists()
    assert not again.training
    for key, value in tokenizer.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_a_run_is_not_overwritten_unasked(tmp_path):
    run(tmp_path)
    before = weights(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path} holds a run already; add --resume"):
        run(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    for resume in (False, True):
        with pytest.raises(ConfigError, match=f"{tmp_path} holds a model already"):
            run(tmp_path, resume=resume)
    assert weights(tmp_path) == before


@pytest.mark.parametrize("change", ["model", "training", "seed", "images"])
def test_another_run_is_not_resumed(tmp_path, change):
    recipe = tiny.recipe()
    run(tmp_path, recipe)
    before = weights(tmp_path)
    options = {"recipe": recipe, "seed": 0}
    if change == "model":
        options["recipe"] = replace(recipe, model=tiny.model("vector-ema"))
    elif change == "training":
        options["recipe"] = tiny.recipe(learning_rate=1e-3)
    elif change == "seed":
        options["seed"] = 1
    else:
        options["images"] = tiny.images("test")
    with pytest.raises(ModelError, match="was begun with another recipe, seed or images"):
        run(tmp_path, resume=True, **options)
    assert weights(tmp_path) == before


def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path):
    """Its recipe.json may be this run's, where two have written into one folder."""
    recipe, other = tiny.recipe(steps=4), tiny.recipe(steps=4, learning_rate=1e-3)
    for folder, which in (("mine", recipe), ("other", other)):
        run(tmp_path / folder, which)
    (tmp_path / "mine" / CHECKPOINT).write_bytes((tmp_path / "other" / CHECKPOINT).read_bytes())
    before = weights(tmp_path / "mine")
    with pytest.raises(ModelError, match=r"run of .*last\.ckpt was begun with another .*training\.learning_rate"):
        run(tmp_path / "mine", recipe, resume=True)
    assert weights(tmp_path / "mine") == before


def test_a_second_run_in_one_folder_is_refused(tmp_path, monkeypatch):
    """From the first step on, also before there is a checkpoint, and whether or not it would go on with the first."""
    step, met = TokenizerTraining.training_step, []

    def begin_another(self, *batch):
        monkeypatch.setattr(TokenizerTraining, "training_step", step)
        for resume in (False, True):
            with pytest.raises(ConfigError) as caught:
                run(tmp_path / "run", tiny.recipe("gaussian", steps=4), resume=resume)
            met.append(str(caught.value))
        return step(self, *batch)

    monkeypatch.setattr(TokenizerTraining, "training_step", begin_another)
    run(tmp_path / "run", tiny.recipe(steps=4))
    assert len(met) == 2
    assert all("run is being written by another process; wait until that ends, or choose another" in m for m in met)
    run(tmp_path / "alone", tiny.recipe(steps=4))
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")


def test_of_several_processes_the_first_alone_locks(tmp_path):
    with own(tmp_path / "run", first=True), own(tmp_path / "run", first=False):
        pass
    with own(tmp_path / "run", first=False):
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "junk", "not-ours"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "junk": b"\0" * 1000, "not-ours": None}[damage]
    if content is None:
        torch.save({"state_dict": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"last\.ckpt .*delete it to start again") as caught:
        run(tmp_path, resume=True)
    assert "\n" not in str(caught.value)
