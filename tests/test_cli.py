"""The command line: what it prints, and what it writes."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from hybridvq import __version__
from hybridvq.cli import COMMANDS, main
from hybridvq.commands.arguments import trained_size
from hybridvq.recipe import load_recipe
from tiny import TRAIN, noise


@pytest.fixture
def folder(tmp_path):
    """Images in a train and a test part, one unreadable in each."""
    for split, count in (("train", 9), ("test", 3)):
        for number in range(count):
            noise(tmp_path / "images" / split / f"{number}.png")
        (tmp_path / "images" / split / "bad.png").write_bytes(b"junk")
    return tmp_path / "images"


# What it prints


def test_no_command_prints_help(capsys):
    assert main([]) == 2
    assert "usage: hybridvq" in capsys.readouterr().err


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*([command] if command else []), "--help"])
    out, err = capsys.readouterr()
    assert stop.value.code == 0
    assert err == ""
    assert "site-packages" not in out
    assert os.sep + "recipes" not in out
    options = {
        None: ["train", "evaluate", "reconstruct", "tokenize", "fit-codec", "compare", "--version", "examples:"],
        "train": [
            "--recipe", "--data", "--size", "--skip-unreadable", "--out", "--seed", "--resume", "--eval-images",
            "--print-recipe", "--title", "--group", "--description", "--model.dim", "--model.downsampling",
            "--model.quantizer", "--model.options", "--training.steps", "--training.batch-size", "gaussian",
            "--training.learning-rate", "--training.warmup", "--training.decay", "--training.precision",
            "--training.eval-every", "--training.checkpoint-every", "default: 3000",
        ],
        "evaluate": ["model", "--data", "--size", "--skip-unreadable", "--limit", "--json", "default: photos"],
        "reconstruct": ["model", "images", "--out", "--skip-unreadable", "default: reconstructions"],
        "tokenize": [
            "model", "--data", "--split", "--size", "--skip-unreadable", "--out", "--workers", "--shard-images",
            "--batch-size", "--engine", "--address", "default: 2048",
        ],
        "export": ["model", "--format", "--out", "onnx", "default: exported"],
        "train-prior": [
            "model", "--data", "--size", "--skip-unreadable", "--tokens", "--prior", "--options", "--conditional",
            "--training.steps", "--training.patience", "--out", "--seed", "--resume", "--devices", "--num-nodes",
            "--eval-images", "default: transformer",
        ],
        "sample": [
            "prior", "--out", "--count", "--seed", "--labels", "--temperature", "--top-k", "--top-p", "--guidance",
            "--shape", "--complete", "--keep", "--model", "default: samples",
        ],
        "fit-codec": ["model", "--data", "--size", "--images", "--steps", "--out", "--overwrite", "default: 2048"],
        "compress": [
            "model", "images", "--out", "--stages", "--rate-weight", "--target-bpp", "--target-psnr",
            "--mode", "contextual", "--skip-unreadable", "default: compressed",
        ],
        "decompress": ["model", "files", "--out", "--max-pixels", "default: decompressed"],
        "info": ["file"],
        "models": ["--json", "--threads"],
        "recipes": ["--json", "--threads"],
        "compare": [
            "--config", "--print-config", "--data", "--size", "--skip-unreadable", "--recipes", "--seeds",
            "--first-seed-only", "--steps", "--batch-size", "--eval-images", "--eval-every", "--overrides", "--jobs",
            "--out", "gaussian",
        ],
        "app": ["model", "--baseline", "--prior", "--host", "--port", "default: photos-vq"],
    }  # fmt: skip
    assert not [option for option in options[command] if option not in " ".join(out.split())]


def test_help_shows_the_values_of_the_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "projected-published", "--help"])
    assert "default: 39100" in " ".join(capsys.readouterr().out.split())


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"hybridvq {__version__}\n"


def test_print_recipe_is_a_recipe(tmp_path, capsys):
    words = ["--recipe", "frequency-312", "--model.options.codebook-size", "400", "--model.dim=8", "--print-recipe"]
    assert main(["train", *words]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "mine.yaml"
    path.write_text(printed)
    assert yaml.safe_load(printed)["model"]["options"] == {"frequent": 312, "codebook_size": 400}
    assert main(["train", "--recipe", str(path), "--print_recipe"]) == 0
    assert capsys.readouterr().out == printed


def test_print_config(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--recipes", "vector", "--steps=7", "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["recipes"], config["steps"], config["skip_unreadable"]) == (["vector"], 7, False)


# What it does


def test_train_evaluate_reconstruct(trained, tmp_path, capsys):
    written = json.loads((trained / "recipe.json").read_text())
    assert (written["model"]["dim"], written["model"]["options"]) == (8, {"codebook_size": 16})
    assert main(["evaluate", str(trained), "--limit", "9", "--json", str(tmp_path / "x" / "r.json")]) == 0
    out, err = capsys.readouterr()
    assert err == "9 images are few; others may give quite different numbers\n"
    saved = json.loads((tmp_path / "x" / "r.json").read_text())
    assert (saved["images"], saved["bits_per_position"], sum(saved["usage"])) == (9, 4, 9 * 16)
    assert saved["size"] == 16, "the size it was trained at"
    lines = out.splitlines()
    assert lines[0] == f"{trained} on 9 held-out images of photos, 16x16 pixels"
    table = dict(re.split(r" {2,}", line.strip()) for line in lines[1:])
    assert table["PSNR"] == f"{saved['test_psnr_db']:.2f} dB"
    assert table["bits per pixel"].startswith("0.25 raw, ")
    assert table["codes used"].startswith(f"{saved['codes_used']} of 16, ")
    assert main(["evaluate", str(trained), "--limit", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == saved
    assert main(["evaluate", str(trained / "model"), "--size=24", "--limit", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == 24
    image = noise(tmp_path / "a.png", 13)
    assert main(["reconstruct", str(trained), str(image), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.fullmatch(r"\S+a\.png: \d+\.\d\d dB at 0\.379 bits per pixel -> \S+out/a\.png\n", out)
    with Image.open(tmp_path / "out" / "a.png") as written:
        assert written.size == (13, 13)


def test_an_interrupted_run_is_measured_at_its_checkpoint(trained, tmp_path, capsys, complaint):
    run, words = tmp_path / "run", ["--limit", "9", "--json"]
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("model"))
    measured = []
    for folder in (trained, run):
        assert main(["evaluate", str(folder), *words]) == 0
        out, err = capsys.readouterr()
        measured.append(json.loads(out) | {"model": ""})
    assert f"{run} is not finished: this is its checkpoint after 20 steps; --resume continues it\n" in err
    assert measured[0] == measured[1]
    assert "`hybridvq evaluate` measures its last checkpoint" in complaint("export", run)
    (run / "recipe.json").write_text("{}", encoding="utf-8")
    assert main(["evaluate", str(run), *words]) == 2
    assert "cannot be measured ('model'); finish it with --resume" in capsys.readouterr().err


def test_the_size_of_older_models(trained, tmp_path, capsys):
    """It stands in config.json; before, only the recipe.json of the run had it, and a model alone said nothing."""
    for model in (trained, trained / "model"):
        assert trained_size(str(model)) == 16
    config = json.loads((trained / "model" / "config.json").read_text(encoding="utf-8"))
    assert config.pop("size") == 16
    old = tmp_path / "run" / "model"
    shutil.copytree(trained / "model", old)
    (old / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(trained / "recipe.json", tmp_path / "run")
    assert trained_size(str(old)) == trained_size(str(old.parent)) == 16
    assert capsys.readouterr().err == ""
    for content in ("", "[" * 100_000, '{"data": {"size": -3}}', '{"data": {"size": 16}, "data": {"size": 16}}'):
        (tmp_path / "run" / "recipe.json").write_text(content, encoding="utf-8")
        assert trained_size(str(old)) == 32
        assert "does not say at what size it was trained; 32 is used, or give --size" in capsys.readouterr().err


def test_finished_runs_are_kept(trained, capsys, complaint):
    before = (trained / "model" / "model.safetensors").stat().st_mtime_ns
    assert f"{trained} holds a run already; add --resume" in complaint(*TRAIN, "--out", trained)
    assert (trained / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert main([*TRAIN, "--out", str(trained), "--resume"]) == 0
    assert "after 20 steps" in capsys.readouterr().out
    assert "was begun with another recipe" in complaint(*TRAIN, "--out", trained, "--resume", "--model.dim=9")


def test_compare_writes_a_report(tmp_path, capsys):
    config = {
        "recipes": ["identity", "gaussian"], "steps": 2, "batch_size": 4, "size": 16, "eval_images": 8,
        "overrides": {"model.dim": 8}, "out": str(tmp_path / "out"), "skip_unreadable": True,
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(config))
    assert main(["compare", "--config", str(tmp_path / "plan.yaml"), "--batch-size", "8"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"report: {tmp_path / 'out' / 'report.html'}" in out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["setting"]["batch_size"] == 8
    assert result["command"].startswith("hybridvq compare --config")
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--overrides.model.options.code-dim 2 --overrides.model.options.beta=1", (64, 4, {"code_dim": 2, "beta": 1})),
        ("--overrides.model.dim 8 --overrides.model.options.beta 1", (8, 4, {"beta": 1})),
        ("--config PLAN --overrides.model.dim 8", (8, 8, {"codebook_size": 64})),
    ],
)  # fmt: skip
def test_every_override_counts(tmp_path, monkeypatch, words, expected):
    plans = []

    def stop(plan, *_, **__):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("hybridvq.comparison"), "compare", stop)
    text = "overrides: {model: {downsampling: 8}, model.options.codebook_size: 64}"
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    main(["compare", "--recipes", "vector", *words.replace("PLAN", str(tmp_path / "plan.yaml")).split()])
    model = load_recipe("vector", plans[0].recipe_overrides()).model
    assert (model.dim, model.downsampling, model.options) == expected


def test_unreadable_images_are_counted_and_listed(trained, folder, tmp_path, capsys, complaint):
    data = ["--data", str(folder)]
    assert "train/bad.png cannot be read as an image" in complaint(*TRAIN, *data, "--out", tmp_path / "run")
    assert "test/bad.png cannot be read" in complaint("evaluate", trained, *data, "--size", 16)
    assert "bad.png cannot be read" in complaint("reconstruct", trained, folder / "test/bad.png", "--out", tmp_path)
    both = "left out 2 unreadable images:\n  train/bad.png: not an image\n  test/bad.png: not an image\n"
    skip = "--skip-unreadable"
    assert main([*TRAIN, *data, "--out", str(tmp_path / "run"), skip]) == 0
    assert capsys.readouterr().err == both
    assert main(["evaluate", str(trained), *data, "--size", "16", skip]) == 0
    assert capsys.readouterr().err.startswith("left out 1 unreadable images:\n  test/bad.png: not an image\n")
    assert main(["reconstruct", str(trained), str(folder / "test"), "--out", str(tmp_path / "out"), skip]) == 0
    assert "left out 1 unreadable images:\n  " in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 3
    small = ["--steps", "2", "--batch_size", "4", "--size", "16", "--overrides", "{model.dim: 8}"]
    words = ["compare", "--recipes", "identity", *data, *small, "--out", str(tmp_path / "compare")]
    assert "bad.png cannot be read" in complaint(*words)
    assert main([*words, skip]) == 0
    assert capsys.readouterr().err == both


def test_a_process_of_its_own_prints_only_the_result(tmp_path):
    """No library's remarks on either stream, and no progress bar where nobody watches."""
    words = [sys.executable, "-m", "hybridvq.cli", *TRAIN, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == 0
    assert done.stderr == ""
    first, second, *last = done.stdout.splitlines()
    assert re.fullmatch(r"data: photos, [\d,]+ images of 16x16 pixels, 16 to test on", first)
    model = r"0\.0\d million parameters, 20 steps of 8 images, on \w+ at (32-true|bf16-mixed)"
    assert re.fullmatch(rf"VQ-VAE.*: {model}", second)
    said = r"test MSE 0\.\d{4} after 20 steps, \d+ images per second\nmodel: \S+/run/model"
    assert re.fullmatch(said, "\n".join(last))


def test_the_progress_bar_tells_the_time_left(tmp_path):
    """On a terminal, stderr shows the steps done, the time left and the error."""
    pty = pytest.importorskip("pty")
    main_end, terminal = pty.openpty()
    words = [sys.executable, "-m", "hybridvq.cli", *TRAIN, "--training.steps", "60", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "100"}
    environment["PYTHONIOENCODING"] = "ascii"  # the narrowest of terminals
    done = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main_end, 65536):
            shown += part
    except OSError:  # how Linux tells that the other end is closed
        pass
    os.close(main_end)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0
    assert b"after 60 steps" in out
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"training +\d+/60 .* \d:\d\d:\d\d left, training MSE \d\.\d{4}", text)


def test_ctrl_c(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["evaluate"], "run", interrupt)
    assert main(["evaluate", "x"]) == 130
    assert capsys.readouterr().err == "hybridvq: interrupted\n"
