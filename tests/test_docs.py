"""The code in the documentation runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import tiny
from data.conftest import noise
from hybridvq import Tokenizer, load_tokenizer
from hybridvq.cli import main

DOCS = Path(__file__).parents[1] / "docs"


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_layer_page_runs():
    blocks = python_blocks("layer.md")
    assert len(blocks) == 2
    exec("\n".join(blocks), {})


def test_the_tokenizing_page_runs(tmp_path, monkeypatch):
    """After the page's own command, with a small model and small images in place of those it names."""
    text = (DOCS / "tokenizing.md").read_text()
    command = re.findall(r"^    hybridvq (tokenize runs/mine .*)$", text, re.MULTILINE)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    settings = tiny.model("gain-shape")
    model = Tokenizer(settings.dim, settings.downsampling, settings.quantizer, settings.options)
    model.save_pretrained("runs/mine/model")
    for number in range(70):
        image = tmp_path / f"path/to/images/{'test' if number else 'train'}/{'ab'[number % 2]}/{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(image)
    assert main([*command.split(), "--size", "16", "--workers", "1"]) == 0
    blocks = python_blocks("tokenizing.md")
    assert len(blocks) == 4
    exec("\n".join(blocks), {})


def test_the_generating_page_runs(tmp_path, monkeypatch):
    """After the page's own commands, with a small model in place of the one it names."""
    commands = re.findall(r"^    hybridvq (.*runs/mine.*)$", (DOCS / "generating.md").read_text(), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    words = ["train", "--size", "64", "--eval-images", "8", "--training.steps", "4", "--out", "runs/mine"]
    assert main([*words, *tiny.COMMAND_LINE[2:]]) == 0
    train_prior, sample = (command.replace("path/to/images", "photos").split() for command in commands[:2])
    small = "--options.width 16 --options.layers 1 --options.heads 2 --training.steps 2 --training.batch_size 4"
    assert main([*train_prior, *small.split(), "--eval-images", "8"]) == 0
    assert main(sample) == 0
    assert (tmp_path / "samples" / "grid.png").is_file()
    blocks = python_blocks("generating.md")
    assert len(blocks) == 1
    exec("\n".join(blocks), {})


def test_the_export_page_runs(tmp_path, monkeypatch, capfd):
    """The page's command, quietly, and its code in a process that has neither torch nor hybridvq."""
    command = re.findall(r"^    hybridvq (export .*)$", (DOCS / "export.md").read_text(), re.MULTILINE)[0]
    monkeypatch.chdir(tmp_path)
    Tokenizer(8, 2, "gain-shape", {"codebook_size": 32, "levels": 4}).save_pretrained("runs/mine/model")
    noise(1).resize((19, 14)).save("photo.jpg")
    assert main(command.split()) == 0
    out, err = capfd.readouterr()
    assert err == ""
    tokens, image = "codes int64 (batch, 1, h, w), gains int64 (batch, 1, h, w)", "float32 (batch, 3, 2*h, 2*w)"
    assert out.splitlines() == [
        f"encoder.onnx: x {image} -> {tokens}",
        f"decoder.onnx: {tokens} -> x_hat {image}",
        "export: exported",
    ]
    blocks = python_blocks("export.md")
    assert len(blocks) == 1
    alone = "import sys; sys.modules |= dict.fromkeys(['torch', 'hybridvq'])\n"  # importing one raises
    subprocess.run([sys.executable, "-c", alone + blocks[0]], check=True)
    tokenizer = load_tokenizer("runs/mine")
    x = torch.from_numpy(np.array(Image.open("photo.jpg"))[:14, :18]).movedim(-1, 0)[None] / 127.5 - 1
    with torch.no_grad():
        x_hat = tokenizer.decode(tokenizer.encode(x))[0].movedim(0, -1)
    decoded = np.array(Image.open("photo-decoded.png")).astype(int)
    assert np.abs(decoded - ((x_hat.numpy() + 1) * 127.5).round()).max() <= 1
