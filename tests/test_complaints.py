"""One sentence for everything that can go wrong at the command line, and nothing half-written."""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from hybridvq.cli import main
from tiny import TRAIN, noise


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nope", "there is no command 'nope'; `hybridvq --help` lists all"),
        ("--nope", "there is no option --nope; see `hybridvq --help`"),
        ("train --nope 3", "there is no option --nope 3; see `hybridvq train --help`"),
        ("train --training.step 3", "there is no option --training.step 3"),
        ("train --model.dim x", "model.dim: 'x' is not of type int"),
        ("train --recipe", "--recipe: expected one argument"),
        ("train --recipe nope", "there is no recipe 'nope'; give a YAML file or one of"),
        ("train --model.quantizer nope", "there is no quantizer named 'nope'; choose one of vector"),
        ("train --model.options.nope 3", "the vector quantizer has no option 'nope'; it takes codebook_size"),
        ("train --model.options.beta x", "beta is 'x'; it must be a number"),
        ("train --training.batch-size 0", "training.batch_size is 0; it must be at least 1"),
        ("train --training.learning_rate -1", "training.learning_rate is -1.0; it must be positive"),
        (
            "train --size 30",
            "images of 30 pixels per side do not divide into positions of 4x4; choose a size such as 32",
        ),
        ("train --size 0", "size is 0; it must be at least 1"),
        ("train --seed -1", "seed is -1"),
        ("train --eval-images 0", "--eval-images is 0"),
        ("train --data /no/where", "'/no/where' is not a data set"),
        ("evaluate", "the following arguments are required"),
        ("evaluate /no/where", "there is no model folder /no/where; give a folder"),
        ("reconstruct /no/where a.png", "there is no model folder /no/where"),
        ("export /no/where", "there is no model folder /no/where"),
        ("export /no/where --format nope", "format: Expected a"),
        ("compare", "compare needs recipes"),
        ("compare --recipes vector --steps 0", "steps is 0; it must be at least 1"),
        ("compare --recipes vector --jobs 0", "jobs is 0; it must be at least 1"),
        ("compare --recipes vector --seeds x", "'x' is not of type int"),
        ("compare --config /no/where.yaml", "/no/where.yaml"),
        ("compare --recipes nope", "there is no recipe 'nope'"),
    ],
)
def test_wrong_words(complaint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in complaint(*words.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "recipes: [vector\n",
        "bogus: 1\n",
        "steps: x\n",
        "- a\n",
        "overrides: 3\n",
        "a: &a 1\nb: *a",
        "steps: 1\nsteps: 2",
    ],
)
def test_wrong_plans(complaint, tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    complaint("compare", "--config", path)


def test_wrong_data(complaint, tmp_path):
    def trained_on(data):
        return complaint(*TRAIN, "--data", data, "--out", tmp_path / "run")

    (tmp_path / "empty").mkdir()
    assert "empty has no image files" in trained_on(tmp_path / "empty")
    pq.write_table(pa.table({"picture": [1], "label": [2]}), tmp_path / "x.parquet")
    assert "x.parquet has the columns ['picture', 'label']" in trained_on(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    assert "y.parquet cannot be read as a parquet file" in trained_on(tmp_path / "y.parquet")
    whole = noise(tmp_path / "part" / "train" / "a.png", 40).read_bytes()
    noise(tmp_path / "part" / "test" / "b.png", 40)
    huge = tiny.huge_png(whole)
    for content, reason in ((whole[:1000], "truncated"), (b"", "empty"), (huge, "over the limit")):
        (tmp_path / "part" / "train" / "a.png").write_bytes(content)
        assert reason in trained_on(tmp_path / "part")
    assert not (tmp_path / "run").exists()


def test_wrong_sizes_for_a_model(complaint, trained):
    assert "images of 18 pixels per side do not divide" in complaint("evaluate", trained, "--size", 18)
    assert "too small to measure" in complaint("evaluate", trained, "--size", 4)


def test_images_of_one_name(complaint, trained, tmp_path):
    a, b = noise(tmp_path / "x" / "a.png"), noise(tmp_path / "y" / "a.png")
    assert "would both be written to" in complaint("reconstruct", trained, a, b, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_models(complaint, trained, tmp_path):
    (tmp_path / "model").mkdir()
    assert "holds no config.json" in complaint("evaluate", tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((trained / "model" / name).read_bytes()[:100])
    assert "cannot be used" not in complaint("evaluate", tmp_path)
    assert "does not hold a tokenizer that this version can load" in complaint("evaluate", tmp_path)


def test_places_that_cannot_be_written(complaint, trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "x"
    assert f"{inside} cannot be written" in complaint(*TRAIN, "--out", inside)
    image = noise(tmp_path / "a.png")
    assert "choose another --out" in complaint("reconstruct", trained, image, "--out", inside)
    words = ["compare", "--recipes", "identity", "--size", "16", "--overrides", "{model.dim: 8}", "--out", str(inside)]
    assert f"{inside} cannot be written" in complaint(*words)
    assert main(["evaluate", str(trained), "--size", "16", "--limit", "4", "--json", str(inside)]) == 2
    out, err = capsys.readouterr()
    assert "on 4 held-out images" in out
    assert re.search(r"^hybridvq: \S+ cannot be .*written \([^\n]*\)\n\Z", err, re.MULTILINE)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_folders_without_permission(complaint, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written (Permission denied)" in complaint(*TRAIN, "--out", tmp_path / "locked" / "run")
