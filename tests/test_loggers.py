"""What a run shows while it trains: numbers and pictures in its loggers, lines where there is no terminal."""

import csv
import re

import pytest
import torch
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
from hybridvq import ConfigError, MissingExtraError, load_recipe
from hybridvq.cli import main
from hybridvq.training import LOGGERS, callbacks, loggers
from runs import cut_off, run, weights


def test_tensorboard_shows_reconstructions(tmp_path):
    _, history = run(tmp_path, tiny.recipe(eval_every=4))
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0}).Reload()
    pictures = events.Images("test/reconstructions")
    assert [picture.step for picture in pictures] == [4, 8, 16, 20]
    assert [test["step"] for test in history.tests] == [4, 8, 12, 16, 20]
    assert (pictures[0].width, pictures[0].height) == (4 * tiny.SIZE, 2 * tiny.SIZE)


class Shown(Logger):
    name, version = "shown", 0

    def __init__(self):
        self.numbers, self.pictures = {}, []

    def log_metrics(self, metrics, step=None):
        self.numbers.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *_):
        pass

    def log_image(self, key, images, step=None):
        self.pictures.append((key, images, step))


def test_loggers_stand_side_by_side_and_may_be_ones_own(tmp_path, monkeypatch):
    shown = Shown()
    monkeypatch.setitem(LOGGERS, "mine", lambda folder, first: shown)
    tokenizer, history = run(tmp_path / "a", tiny.recipe(logger=["csv", "mine"], loss={"mse": 1.0, "l1": 0.5}))
    run(tmp_path / "b", tiny.recipe(loss={"mse": 1.0, "l1": 0.5}))
    assert weights(tmp_path / "a") == weights(tmp_path / "b"), "what is logged changes no weight"
    assert not (tmp_path / "a" / "tensorboard").exists()
    with (tmp_path / "a" / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["test/mse"]]
    assert [float(row["test/mse"]) for row in rows] == pytest.approx([test["test_mse"] for test in history.tests])
    assert {"train/mse", "train/l1", "train/commitment"} <= shown.numbers[tiny.STEPS - 1].keys()
    key, (picture,), step = shown.pictures[-1]
    assert (key, step, picture.shape) == ("test/reconstructions", tiny.STEPS, (2 * tiny.SIZE, 4 * tiny.SIZE, 3))
    x = tiny.test_batches()[0][:4]
    with torch.no_grad():
        both = torch.cat([torch.cat(list(images), 2) for images in (x, tokenizer.cpu()(x).x_hat)], 1)
    assert abs(torch.from_numpy(picture) / 127.5 - 1 - both.permute(1, 2, 0)).max() < 0.02


def test_a_resumed_run_keeps_the_rows_of_the_first_and_may_change_its_logger(tmp_path, monkeypatch):
    cut_off(tmp_path, tiny.recipe(logger="csv"), 7, monkeypatch)
    run(tmp_path, tiny.recipe(logger=["csv"]), resume=True)
    assert (tmp_path / "csv" / "metrics.csv").exists()
    assert (tmp_path / "csv-from-5" / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_names_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    message = rf"^this needs {name}, which is not installed; pip install '.+\[{name}\]'$"
    with pytest.raises(MissingExtraError, match=message):
        run(tmp_path / "run", tiny.recipe(logger=[name, "tensorboard"]))
    assert not (tmp_path / "run").exists()


def test_a_logger_that_cannot_start_is_one_sentence(tmp_path, monkeypatch):
    def fail(folder, first):
        raise RuntimeError("no key\nfor this account")

    monkeypatch.setitem(LOGGERS, "mine", fail)
    with pytest.raises(ConfigError, match=r"^the logger mine cannot be started \(no key for this account\); see to it"):
        run(tmp_path / "run", tiny.recipe(logger="mine"))
    assert not (tmp_path / "run").exists()


def test_what_is_no_logger(tmp_path, capsys):
    with pytest.raises(ConfigError, match=re.escape("training.logger is 'paper'; use tensorboard, csv, wandb, mlflow")):
        run(tmp_path / "run", tiny.recipe(logger="paper"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine.yaml").write_text("training: {logger: paper}\n")
    words = ["--recipes", "gaussian", str(tmp_path / "mine.yaml"), "--size", "16", "--batch_size", "4"]
    assert main(["compare", *words, "--out", str(tmp_path / "out")]) == 2
    assert "recipe mine: training.logger is 'paper'" in capsys.readouterr().err


def test_recipes_and_words_give_loggers():
    assert load_recipe("vector").training.logger == "tensorboard"
    assert load_recipe("vector", {"training.logger": "csv"}).training.logger == "csv"
    assert load_recipe("vector", ["--training.logger=[csv, wandb]"]).training.logger == ["csv", "wandb"]


def test_a_log_is_not_silent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(callbacks, "LINE_SECONDS", 0.0)
    run(tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == tiny.STEPS
    assert re.fullmatch(r"step 10 of 20: \d+:\d\d:\d\d left, training MSE 0\.\d{4}", lines[9])
