"""What the coder of files spends on the tokens of a comparison's models."""

import math

import pytest
from experiments import contextual

import tiny
from hybridvq.comparison import compare
from hybridvq.documents import read_json, to_json
from hybridvq.settings import Plan


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(contextual, "TRAIN_IMAGES", 40)
    monkeypatch.setattr(contextual, "TEST_IMAGES", 4)
    for name, options in (("vector", "codebook_size: 16"), ("projected", "codebook_size: 16")):
        (tmp_path / f"{name}.yaml").write_text(f"title: {name}\nmodel: {{quantizer: {name}, options: {{{options}}}}}\n")
    plan = Plan([str(tmp_path / "vector.yaml"), str(tmp_path / "projected.yaml")], steps=3, batch_size=8)
    plan.overrides = {"model.dim": 8, "training.precision": "32-true"}
    compare(plan, "photos", tmp_path / "out", size=tiny.SIZE)
    return tmp_path / "out"


def test_bits_are_counted_once_where_files_hold_the_tokens(comparison, capsys):
    words = [str(comparison), "--data", "photos", "--size", str(tiny.SIZE), "--steps", "20"]
    contextual.main(words)
    found = read_json(comparison / "runs" / "vector-seed0" / contextual.FILE)
    for kind in ("static", "contextual"):
        assert 0 < found[f"{kind}_bits_per_position"] < math.log2(16) + 2
    assert found["table_bytes"] > 0
    left = read_json(comparison / "runs" / "projected-seed0" / contextual.FILE)["left_out"]
    assert "floats" in left
    path = comparison / "runs" / "vector-seed0" / contextual.FILE
    path.write_bytes(to_json({"kept": True}))
    contextual.main(words)
    assert read_json(path) == {"kept": True}, "what is there is not measured again"
