"""Training on a stream: a killed run resumes to the bit, and other ways of reading are refused."""

import io
import multiprocessing
import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tiny
from hybridvq import ModelError
from hybridvq.cli import main
from hybridvq.data import EvalBatches, open_stream
from hybridvq.training import train
from hybridvq.training.module import TokenizerTraining
from runs import CHECKPOINT, read_checkpoint, weights

# A machine may have fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three shards of 25, 17 and 8 images, of which few are held out: a run of 160 goes through more than 3 epochs."""
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    for number, count in enumerate((25, 17, 8)):
        encoded = []
        for _ in range(count):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (18, 20, 3), dtype=np.uint8)).save(buffer, "PNG")
            encoded.append(buffer.getvalue())
        pq.write_table(pa.table({"image": encoded}), folder / f"{number}.parquet", row_group_size=5)
    return folder


def run(folder, shards, workers=0, recipe=None, shuffle_buffer=10, **options):
    stream = open_stream(str(shards), "train", size=tiny.SIZE, shuffle_buffer=shuffle_buffer, workers=workers)
    held_out = open_stream(str(shards), "test", size=tiny.SIZE).take(8)
    return train(recipe or tiny.recipe(), stream, EvalBatches(held_out, 8), folder, progress=False, **options)


def train_and_die(folder, shards, workers, steps):
    torch.set_num_threads(1)
    step, left = TokenizerTraining.training_step, [steps]

    def mortal(module, x, batch_idx):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return step(module, x, batch_idx)

    TokenizerTraining.training_step = mortal
    run(folder, shards, workers, resume=True)


@pytest.mark.parametrize(("workers", "kills"), [(0, [(3, None), (7, 5), (8, 10)]), (2, [(7, 5)])])
def test_a_killed_run_resumes_to_the_bit(tmp_path, shards, workers, kills, monkeypatch):
    shown = []
    step = TokenizerTraining.training_step
    monkeypatch.setattr(
        TokenizerTraining, "training_step", lambda module, x, i: shown.append(x.clone()) or step(module, x, i)
    )
    _, whole = run(tmp_path / "whole", shards, workers)
    assert len(shown) == tiny.STEPS
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hybridvq.training", "tiny"])
    for steps, reached in kills:
        process = context.Process(target=train_and_die, args=(tmp_path / "cut", shards, workers, steps))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert (read_checkpoint(tmp_path / "cut")["global_step"] if reached else None) == reached
    first, *_ = (reached for _, reached in reversed(kills))
    _, resumed = run(tmp_path / "cut", shards, workers, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert resumed == whole_of(whole, resumed)
    assert all(torch.equal(a, b) for a, b in zip(shown[tiny.STEPS :], shown[first : tiny.STEPS], strict=True))
    (positions,) = read_checkpoint(tmp_path / "cut")["stream"]
    assert len(positions) == max(1, workers)
    assert min(epoch for epoch, _ in positions) >= 2


def whole_of(whole, resumed):
    """A history but for its times."""
    return type(whole)(**vars(whole) | {"seconds": resumed.seconds, "timed_steps": resumed.timed_steps})


@pytest.mark.parametrize(("change", "named"), [({"workers": 1}, "workers"), ({"shuffle_buffer": 9}, "shuffle_buffer")])
def test_another_way_of_reading_is_refused(tmp_path, shards, change, named):
    run(tmp_path, shards)
    before = weights(tmp_path)
    with pytest.raises(ModelError, match=rf"recipe\.json was begun .*\(see data\.{named} there\)"):
        run(tmp_path, shards, resume=True, **change)
    assert weights(tmp_path) == before


def test_another_number_of_processes_is_refused(tmp_path, shards):
    run(tmp_path, shards)
    checkpoint = read_checkpoint(tmp_path)
    checkpoint["global_step"] = 5
    checkpoint["stream"] *= 2
    torch.save(checkpoint, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match="reads its stream in 2 processes, not 1; resume it on as many devices"):
        run(tmp_path, shards, resume=True)


def test_the_command_line_streams(tmp_path, shards, capsys):
    stream = ["--data", str(shards), "--stream"]
    out = str(tmp_path / "run")
    recipe = ["--recipe", "vector", "--training.steps", "3", *tiny.COMMAND_LINE]
    assert main(["train", *recipe, *stream, "--workers", "2", "--shuffle-buffer", "9", "--out", out]) == 0
    assert main(["evaluate", out, *stream, "--limit", "3"]) == 0
    assert "3 images are few" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--recipes", "vector", "--stream"], "compare shows every recipe the same images"),
        (["train", "--stream"], "'photos' cannot be streamed"),
        (
            ["train", "--stream", "--data", "x/y.tar", "--shuffle-buffer", "0"],
            "shuffle_buffer is 0; it must be at least 1",
        ),
    ],
)
def test_what_cannot_be_streamed_is_one_sentence(words, message, tmp_path, capsys):
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_evaluate_is_told_how_much_of_a_stream(tmp_path, shards, capsys):
    run(tmp_path, shards)
    assert main(["evaluate", str(tmp_path), "--data", str(shards), "--stream"]) == 2
    assert "say how many: --limit 2048" in capsys.readouterr().err


def test_skipped_images_are_listed(tmp_path, shards, capsys):
    pq.write_table(pa.table({"image": [b"junk"] * 3}), tmp_path / "train-1.parquet")
    (tmp_path / "train-0.parquet").write_bytes((shards / "0.parquet").read_bytes())
    (tmp_path / "test.parquet").write_bytes((shards / "1.parquet").read_bytes())
    words = ["train", "--training.steps", "6", *tiny.COMMAND_LINE, "--data", str(tmp_path), "--stream"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    assert "train-1.parquet row" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "b"), "--skip-unreadable"]) == 0
    err = capsys.readouterr().err
    assert "left out 3 unreadable images:" in err
    assert "train-1.parquet row 2: not an image" in err
