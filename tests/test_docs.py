"""The code in the documentation runs as it stands."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

import tiny
from data.conftest import noise
from hybridvq import Tokenizer
from hybridvq.cli import main
from hybridvq.codec import fit_tables
from hybridvq.tokenizer import weight_hash

DOCS = Path(__file__).parents[1] / "docs"


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_layer_page_runs():
    blocks = python_blocks("layer.md")
    assert len(blocks) == 2
    exec("\n".join(blocks), {})


def test_the_format_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = tiny.model("gain-shape")
    model = Tokenizer(settings.dim, settings.downsampling, settings.quantizer, settings.options)
    model.save_pretrained("runs/mine/model")
    folder = Path("runs/mine/model")
    tokens = np.zeros((1, 1, 4, 4), int)
    fit_tables([(tokens, tokens)], model, weight_hash(folder), width=8, steps=1).save(folder)
    (block,) = python_blocks("format.md")
    exec(block, {})


def test_the_compressing_page_runs(tmp_path, monkeypatch):
    """After the page's own commands, on photographs, with a small model in place of the one it names."""
    text = (DOCS / "compressing.md").read_text()
    commands = re.findall(r"^    hybridvq (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["fit-codec", "compress", "decompress", "info"]
    monkeypatch.chdir(tmp_path)
    settings = tiny.model("gain-shape")
    model = Tokenizer(settings.dim, settings.downsampling, settings.quantizer, settings.options)
    model.save_pretrained("runs/mine/model")
    Image.new("RGB", (13, 9), "teal").save("photo.jpg")
    Path("path/to/folder").mkdir(parents=True)
    Image.new("L", (20, 10)).save("path/to/folder/grey.png")
    fit, *others = commands
    assert (
        main([*fit.replace("path/to/images", "photos").split(), "--size", "16", "--images", "8", "--steps", "2"]) == 0
    )
    for command in others:
        assert main(command.split()) == 0
    assert sorted(path.name for path in Path("decompressed").iterdir()) == ["grey.png", "photo.png"]
    (block,) = python_blocks("compressing.md")
    exec(block, {})


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
