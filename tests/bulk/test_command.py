"""`hybridvq tokenize`: what it prints, and one sentence for what can go wrong."""

import json
import re

import pytest
from rich.progress import Progress

import tiny
from data.conftest import noise
from hybridvq import load_tokens
from hybridvq.cli import main
from hybridvq.data import EvalBatches


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 9), ("test", 3)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(count):
            noise(number).save(tmp_path / "images" / split / f"{number}.png")
        (tmp_path / "images" / split / "bad.png").write_bytes(b"junk")
    return tmp_path / "images"


@pytest.fixture
def complaint(capsys):
    def run(*words):
        assert main(["tokenize", *map(str, words)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"(.* does not say at what size it was trained; [^\n]+\n)?hybridvq: [^\n]+\n", err)
        return err

    return run


def test_it_says_what_it_made(model, folder, tmp_path, capsys, complaint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(model), "--data", "images", "--size", "16", "--shard-images", "4", "--workers", "1"]
    assert "train/bad.png cannot be read as an image" in complaint(*words)
    assert not (tmp_path / "tokens").exists()
    for made in (3, 0):
        assert main(["tokenize", *words, "--skip-unreadable"]) == 0
        out, err = capsys.readouterr()
        assert re.fullmatch(
            rf"9 images in 3 shards, {made} of them made now, \d+ bytes per image\ntokens: tokens\n", out
        )
        assert err == "left out 1 unreadable images:\n  train/bad.png: not an image\n"
    assert len(load_tokens("tokens")) == 9
    assert main(["tokenize", *words, "--skip-unreadable", "--split", "test", "--out", "held-out"]) == 0
    assert len(load_tokens("held-out")) == 3


def test_the_bar_says_which_tokens(model, tmp_path, monkeypatch):
    shown, add_task = [], Progress.add_task
    monkeypatch.setattr(Progress, "add_task", lambda *words, **more: shown.append(words[1]) or add_task(*words, **more))
    words = ["tokenize", str(model), "--size", "16", "--workers", "1", "--split", "test"]
    assert main([*words, "--out", str(tmp_path / "tokens")]) == 0
    assert shown == ["tokens, test"]


def test_a_run_tells_the_size(model, tmp_path, capsys):
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "recipe.json").write_text(json.dumps({"data": {"size": 64}}))
    words = ["tokenize", str(tmp_path), "--split", "test", "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(words) == 0
    manifest = load_tokens(tmp_path / "out").manifest
    assert (manifest.data["size"], manifest.grid) == (64, (16, 16))
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required"),
        ("/no/where", "there is no model folder /no/where"),
        ("MODEL --split val", "split"),
        ("MODEL --engine slurm", "engine"),
        ("MODEL --address ray://x:1", "--address is of a Ray cluster; add --engine ray"),
        ("MODEL --data /no/where", "'/no/where' is not a data set"),
        ("MODEL --workers 0", "workers is 0; it must be at least 1"),
        ("MODEL --size 18", "images of 18 pixels per side do not divide into positions of 4x4"),
        ("MODEL --out FILE/x", "cannot be written"),
    ],
)
def test_wrong_words(model, tmp_path, monkeypatch, complaint, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert message in complaint(*words.replace("MODEL", str(model)).split())
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_an_image_that_turns_out_unreadable(model, folder, tmp_path, monkeypatch, complaint):
    """In sets too large to be decoded when they are opened, a bad file shows in the worker that needs it."""
    monkeypatch.setattr("hybridvq.data.images.MEMORY_BUDGET", 0)
    words = [model, "--data", folder, "--size", 16, "--shard-images", 4, "--workers", 1, "--out", tmp_path / "out"]
    assert "train/bad.png cannot be read as an image (not an image)" in complaint(*words)
    made = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert made == [f"train-0000{i}-of-00003.parquet" for i in range(2)], "those before it stay"
    noise(20).save(folder / "train" / "bad.png")
    assert "holds tokens made with another data.fingerprint" in complaint(*words)


def test_sets_kept_in_memory_are_sent_without_their_pixels(folder, monkeypatch):
    from hybridvq import open_images
    from hybridvq.bulk.shards import without_memory

    images = open_images(str(folder), "train", size=16, skip_unreadable=True)
    light = without_memory(images)
    assert vars(light)["_memory"] is None
    assert vars(images)["_memory"] is not None
    assert (EvalBatches(light, 9)[0] == EvalBatches(images, 9)[0]).all()
    assert without_memory(tiny.images("test")).fingerprint == tiny.images("test").fingerprint
