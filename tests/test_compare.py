"""Comparisons end to end on the sample photographs, as small as they can be."""

import errno
import json
import math
import multiprocessing
import os
import signal
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from hybridvq import ConfigError, ModelError, TrainingError, write_report
from hybridvq.comparison import compare, parallel
from hybridvq.comparison import plan as plan_module
from hybridvq.comparison import run as run_module
from hybridvq.comparison.run import curve
from hybridvq.data import EvalBatches, TrainBatches, open_side
from hybridvq.settings import DataSettings, Plan
from hybridvq.training import History
from hybridvq.training.module import TokenizerTraining
from hybridvq.writing import sole_writer

DATA = DataSettings(size=32)
KEYS = {
    "recipe", "title", "group", "description", "seed", "steps", "params", "test_mse", "test_psnr_db", "test_ssim",
    "code_entropy_bits", "codes_used", "perplexity", "rate_bpp", "images_per_second", "max_loss_spike", "worst_batches",
    "curve",
    "precision", "threads", "gains", "usage", "images", "train_seconds", "bits_per_position",
}  # fmt: skip
# What a second time does not reproduce.
CLOCK = {"images_per_second", "train_seconds"}


@pytest.fixture
def plan(tmp_path):
    """Two recipes by path with two seeds, and one by name with the first seed."""
    for name in ("vector", "projected"):
        text = f"title: Small {name}\nmodel: {{quantizer: {name}, options: {{codebook_size: 16, restart_every: 2}}}}\n"
        (tmp_path / f"small-{name}.yaml").write_text(text)
    return Plan(
        recipes=[str(tmp_path / "small-vector.yaml"), str(tmp_path / "small-projected.yaml")],
        seeds=[0, 1],
        first_seed_only=["identity"],
        steps=6,
        batch_size=8,
        eval_images=16,
        eval_every=4,
        overrides={"model.dim": 8, "training.precision": "32-true", "training.checkpoint_every": 2},
    )


@pytest.fixture
def single(plan):
    return replace(plan, recipes=plan.recipes[:1], seeds=[0], first_seed_only=[])


def ignore(_):
    pass


def quiet(plan, out, data=DATA):
    return compare(plan, data, out, "hybridvq compare", say=ignore)


def numbers(result):
    return [{key: value for key, value in run.items() if key not in CLOCK} for run in result["runs"]]


def test_end_to_end_and_again(tmp_path, plan, monkeypatch):
    out, lines = tmp_path / "out", []
    result = compare(plan, DATA, out, "hybridvq compare", say=lines.append)
    assert lines[0] == "[1/5] Small vector, seed 0: 6 steps"
    assert json.loads((out / "result.json").read_text()) == result
    assert [(run["recipe"], run["seed"]) for run in result["runs"]] == [
        ("small-vector", 0), ("small-vector", 1), ("small-projected", 0), ("small-projected", 1), ("identity", 0)
    ]  # fmt: skip
    for run in result["runs"]:
        assert run.keys() >= KEYS
        assert run["steps"] == 6
        assert run["images_per_second"] > 0
        assert run["max_loss_spike"] is None
        assert run["test_psnr_db"] == pytest.approx(10 * math.log10(4 / run["test_mse"]))
        assert run["curve"]["test_step"] == [4, 6]
        assert np.load(out / run["images"]).shape == (8, 32, 32, 3)
    bits = {run["recipe"]: run["bits_per_position"] for run in result["runs"]}
    assert bits == {"small-vector": 4, "small-projected": 36, "identity": 256}
    assert result["data"]["fingerprint"]
    assert result["versions"].keys() == {"python", "hybridvq", "torch", "lightning", "numpy"}
    assert result["hardware"].keys() == {"device", "name", "cores"}
    assert np.load(out / "originals.npy").dtype == np.uint8
    assert write_report(out).read_text().count("Small projected") > 1
    assert not list(out.rglob("*.partial"))

    monkeypatch.setattr(run_module, "train", None)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if "runs" in path.parts and path.is_file()}
    assert numbers(compare(plan, DATA, out, say=lines.append)) == numbers(result)
    assert lines[-5:][0] == "Small vector, seed 0: done before"
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_originals_stay_those_that_finished_runs_reconstructed(tmp_path, plan, monkeypatch):
    quiet(replace(plan, recipes=plan.recipes[:1], seeds=[0], first_seed_only=[]), tmp_path / "out")
    before = np.load(tmp_path / "out" / "originals.npy")
    monkeypatch.setattr(plan_module, "choose_images", lambda images: EvalBatches(images, 8, 8)[0])
    quiet(replace(plan, seeds=[0], first_seed_only=[]), tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "originals.npy"), before)


def test_curves_are_of_training_images_that_nobody_learns_from(tmp_path, single, monkeypatch):
    seen = {}

    def train(recipe, images, batches, *args, **options):
        seen.update(learned=images, measured=batches.images)
        return real(recipe, images, batches, *args, **options)

    real = run_module.train
    monkeypatch.setattr(run_module, "train", train)
    result = compare(replace(single, validation=3), DATA, tmp_path / "out")
    whole, learned, measured = open_side(DATA, "train"), seen["learned"], seen["measured"]
    assert len(measured) == 3
    assert result["data"]["train_images"] == len(learned) == len(whole) - 3
    assert result["data"]["test_images"] == len(open_side(DATA, "test"))
    assert len({learned.fingerprint, measured.fingerprint, whole.fingerprint}) == 3
    crops = [part.crop(i, None).tobytes() for part in (learned, measured) for i in range(len(part))]
    assert sorted(crops) == sorted(whole.crop(i, None).tobytes() for i in range(len(whole)))
    for count in (len(whole), len(whole) + 1):
        with pytest.raises(ConfigError, match=f"validation is {count}, and there are {len(whole)} training images"):
            compare(replace(single, validation=count), DATA, tmp_path / "more")


def test_titles_can_change_without_training(tmp_path, single, monkeypatch):
    quiet(single, tmp_path / "out")
    monkeypatch.setattr(run_module, "train", None)
    path = tmp_path / "small-vector.yaml"
    path.write_text(path.read_text().replace("Small vector", "Renamed"))
    assert quiet(single, tmp_path / "out")["runs"][0]["title"] == "Renamed"


def test_processes_give_the_same_numbers(tmp_path, plan, monkeypatch):
    plan = replace(plan, seeds=[0], first_seed_only=[])
    one = quiet(plan, tmp_path / "one")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    two = quiet(replace(plan, jobs=2), tmp_path / "two")
    assert [run["threads"] for run in two["runs"]] == [1, 1]
    assert numbers(one) == numbers(two)


def test_recipes_see_the_same_images(tmp_path, plan, monkeypatch):
    seen = []
    original = TrainBatches.__getitem__

    def record(self, step):
        seen.append((step, original(self, step)))
        return seen[-1][1]

    monkeypatch.setattr(TrainBatches, "__getitem__", record)
    quiet(replace(plan, seeds=[3]), tmp_path / "out")
    runs = [seen[start : start + 6] for start in range(0, len(seen), 6)]
    assert len(runs) == 3
    for run in runs:
        assert [step for step, _ in run] == list(range(6))
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("change", ["steps", "overrides", "data"])
def test_changed_settings_are_refused(tmp_path, single, change):
    out = tmp_path / "out"
    quiet(single, out)
    before = (out / "result.json").read_bytes()
    data = replace(DATA, size=36) if change == "data" else DATA
    if change == "steps":
        single = replace(single, steps=7)
    elif change == "overrides":
        single = replace(single, overrides=single.overrides | {"training.learning_rate": 1e-3})
    with pytest.raises(ConfigError, match="small-vector-seed0 was made with other settings or images; choose another"):
        quiet(single, out, data)
    assert (out / "result.json").read_bytes() == before


def die_in_the_second_run(plan, out):
    torch.set_num_threads(1)
    step, done = TokenizerTraining.training_step, []

    def mortal(self, x, batch_idx):
        done.append(batch_idx)
        if len(done) == plan.steps + 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, x, batch_idx)

    TokenizerTraining.training_step = mortal
    quiet(plan, out)


def test_a_killed_comparison_goes_on(tmp_path, plan):
    plan = replace(plan, seeds=[0], first_seed_only=[])
    process = multiprocessing.get_context("forkserver").Process(
        target=die_in_the_second_run, args=(plan, tmp_path / "cut")
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "cut" / "runs" / "small-vector-seed0" / "run.json").exists()
    assert not (tmp_path / "cut" / "runs" / "small-projected-seed0" / "run.json").exists()
    assert not (tmp_path / "cut" / "result.json").exists()
    other = replace(plan, recipes=plan.recipes[1:], overrides=plan.overrides | {"training.decay": 0})
    with pytest.raises(ModelError, match="was begun with another recipe, seed or images"):
        quiet(other, tmp_path / "cut")
    lines = []
    resumed = compare(plan, DATA, tmp_path / "cut", "hybridvq compare", say=lines.append)
    assert lines == ["Small vector, seed 0: done before", "[1/1] Small projected, seed 0: 6 steps"]
    assert numbers(resumed) == numbers(quiet(plan, tmp_path / "whole"))


def test_wrong_options_show_before_the_first_run(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(run_module, "train", None)
    out = tmp_path / "out"
    cases = [
        (replace(plan, overrides=plan.overrides | {"model.options.foo": 1}), DATA, "no option 'foo'"),
        (replace(plan, overrides=plan.overrides | {"model.dimm": 1}), DATA, r"there is no option --model\.dimm"),
        (replace(plan, recipes=["vector", "nope"]), DATA, "no recipe 'nope'"),
        (plan, replace(DATA, size=18), "images of 18 pixels per side do not divide"),
    ]
    for wrong, data, message in cases:
        with pytest.raises(ConfigError, match=message):
            quiet(wrong, out, data)
    assert not out.exists()


def test_two_files_of_one_name(tmp_path, single):
    (tmp_path / "deep").mkdir()
    other = tmp_path / "deep" / "small-vector.yaml"
    other.write_text("model: {quantizer: identity}")
    with pytest.raises(ConfigError, match="two different recipes are called small-vector"):
        quiet(replace(single, recipes=[*single.recipes, str(other)]), tmp_path / "out")


def test_a_run_named_twice_is_one(tmp_path, single):
    twice = replace(single, recipes=single.recipes * 2, seeds=[0, 0], first_seed_only=single.recipes)
    assert len(quiet(twice, tmp_path / "out")["runs"]) == 1


def test_a_second_comparison_in_one_folder_is_refused(tmp_path, single):
    with sole_writer(tmp_path / "out"), pytest.raises(ConfigError, match="out is being written by another process"):
        quiet(single, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_comparison_stays(tmp_path, single):
    """One of other recipes or seeds replaces nothing; one of more of them continues it."""
    out = tmp_path / "out"
    quiet(single, out)
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    for other in (replace(single, recipes=["identity"]), replace(single, seeds=[3])):
        with pytest.raises(ConfigError, match="another comparison, which also has small-vector with seed 0; choose an"):
            quiet(other, out)
    assert before == {path: path.read_bytes() for path in out.rglob("*.json")}
    more = quiet(replace(single, first_seed_only=["identity"]), out)
    assert [run["recipe"] for run in more["runs"]] == ["small-vector", "identity"]


@pytest.mark.parametrize("name", ["originals.npy", "run.json"])
def test_a_disk_that_is_full_is_named(tmp_path, single, monkeypatch, name):
    write = run_module.write_whole

    def full(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    monkeypatch.setattr(run_module, "write_whole", full)
    with pytest.raises(TrainingError, match=rf"{name} cannot be written \(No space left on device\); make room there"):
        quiet(single, tmp_path / "out")


def test_folders_that_cannot_be_written(tmp_path, single):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match=r"out cannot be written \(.*\); choose another --out"):
        quiet(single, tmp_path / "out")


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_damaged_results_are_named(tmp_path, single, content):
    path = tmp_path / "out" / "runs" / "small-vector-seed0" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json cannot be read .*delete it to make the run again"):
        quiet(single, tmp_path / "out")


def test_a_killed_process_is_explained(tmp_path, plan, monkeypatch):
    class Broken:
        def __init__(self, *_, **__):
            pass

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = shutdown = lambda *_, **__: None

        def submit(self, *_):
            return object()

    def broken(_):
        raise BrokenProcessPool("terminated abruptly")

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Broken)
    monkeypatch.setattr(parallel, "as_completed", broken)
    with pytest.raises(TrainingError, match=r"the process of a run was killed, .*lower --jobs"):
        quiet(replace(plan, jobs=2), tmp_path / "out")


def test_unreadable_images_are_counted(tmp_path, single):
    folder = tmp_path / "images"
    for split, count in (("train", 9), ("test", 3)):
        (folder / split).mkdir(parents=True)
        for number, image in enumerate(tiny.images(size=16).crop(i, None) for i in range(count)):
            Image.fromarray(image).save(folder / split / f"{number}.png")
        (folder / split / "bad.png").write_bytes(b"junk")
    result = quiet(single, tmp_path / "out", DataSettings(data=str(folder), size=16, skip_unreadable=True))
    assert result["skipped"] == ["train/bad.png: not an image", "test/bad.png: not an image"]
    assert (result["data"]["train_images"], result["data"]["test_images"]) == (9, 3)


def test_curves_are_means_over_stretches():
    losses = np.random.default_rng(0).random(1000).tolist()
    tests = [{"step": 1000, "test_mse": 1.0, "test_quantization_loss": 2.0, "codes_used": 3}]
    points = curve(History(train_mse=losses, train_quantization=losses[::-1], tests=tests))
    assert len(points["step"]) == 400
    assert points["step"][-1] == 1000
    start = 0
    for end, mean, largest, other in zip(
        points["step"], points["train_mse"], points["train_mse_max"], points["train_quantization"], strict=True
    ):
        assert mean == pytest.approx(sum(losses[start:end]) / (end - start))
        assert largest == max(losses[start:end])
        assert other == pytest.approx(np.mean(losses[::-1][start:end]))
        start = end
    assert (points["test_step"], points["test_mse"], points["test_codes_used"]) == ([1000], [1.0], [3])


def test_short_curves_are_whole():
    points = curve(History(train_mse=[3.0, 1.0], train_quantization=[0.0, 0.5]))
    assert points["step"] == [1, 2]
    assert points["train_mse"] == points["train_mse_max"] == [3, 1]
