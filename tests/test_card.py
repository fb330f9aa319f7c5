"""The model card that a run writes: what was trained on what, how well, at which bits, and by which command."""

import re
import shlex

import pytest

import tiny
from hybridvq import load_recipe, load_tokenizer, train
from hybridvq.cli import build_parser
from hybridvq.commands.parser import underscore
from runs import run


@pytest.mark.parametrize(("name", "bits"), [("vector", "9.0"), ("gain-shape", "13.0"), ("identity", None)])
def test_a_run_writes_its_card(tmp_path, name, bits):
    changes = {"model.dim": 8, "training.steps": 3, "training.batch_size": 32, "training.loss": {"mse": 1.0, "l1": 0.5}}
    _, history = train(load_recipe(name, changes), "photos", out=tmp_path / "run", size=32, seed=5, device="cpu")
    card = (tmp_path / "run/model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: hybridvq\n")
    assert "photos: " in card
    assert "3 steps of 32 images" in card
    assert f"| MSE on [-1, 1] | {history.tests[-1]['test_mse']:.4f} |" in card
    bpp = float(re.search(r"before entropy coding \| ([\d.]+)", card)[1])
    assert bpp == pytest.approx(float(bits) / 16 if bits else 32 * 8 / 16, abs=5e-4)
    assert ("codes used" in card) == (name != "identity")
    assert "{" not in card.replace('{"mse": 1.0, "l1": 0.5}', "")
    assert load_tokenizer(tmp_path / "run").dim == 8


def test_the_command_of_a_card_trains_the_same_recipe(tmp_path):
    changes = {"model.dim": 8, "training.steps": 3, "training.batch_size": 32, "training.loss": {"mse": 1.0, "l1": 0.5}}
    train(load_recipe("gain-shape", changes), "photos", out=tmp_path / "run", size=32, seed=5, device="cpu")
    line = (tmp_path / "run/model/README.md").read_text().split("    hybridvq ")[-1]
    words = [underscore(word) for word in shlex.split(line.replace("\\\n", " "))]
    parsed = build_parser(words).parse_args(words).train
    assert (parsed.recipe, parsed.size, parsed.seed, parsed.model.dim) == ("gain-shape", 32, 5, 8)
    assert (parsed.training.steps, parsed.training.batch_size) == (3, 32)
    assert parsed.training.loss == {"mse": 1.0, "l1": 0.5}


def test_warnings_of_the_run_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridvq.training.watch.Watch.look", lambda *_: ["the loss is odd"])
    run(tmp_path / "run", tiny.recipe(steps=2), watch="warn")
    assert "A warning of the run: the loss is odd" in (tmp_path / "run/model/README.md").read_text()
