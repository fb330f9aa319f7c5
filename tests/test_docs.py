"""The code in the documentation runs as it stands, its command lines parse, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError
from PIL import Image

import tiny
from data.conftest import noise
from hybridvq import Tokenizer, load_tokenizer
from hybridvq.cli import COMMANDS, build_parser, main
from hybridvq.codec import fit_tables
from hybridvq.commands.parser import underscore
from hybridvq.documents import read_json
from hybridvq.losses import LOSSES
from hybridvq.pixels import as_pixels
from hybridvq.quantizers import QUANTIZERS
from hybridvq.tokenizer import weight_hash
from hybridvq.training import LOGGERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/**/*.md"), *ROOT.glob("experiments/*.md"), *DOCS.rglob("*.md")]
)
PROGRAM = re.compile(r"(?:^|[\s/])hybridvq |-m hybridvq\.cli ")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def python_blocks(page):
    return blocks(page, "python")


def outside_blocks(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def links(page):
    return re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`|^    .*$", "", outside_blocks(page.read_text()), flags=re.M)
    )


def anchors(page):
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines(text):
    """The words after `hybridvq` in every line of a text's indented code, continued lines joined."""
    lines = re.findall(r"^    (.*)$", outside_blocks(text).replace("\\\n", " "), re.MULTILINE)
    found = [(PROGRAM.search(line), line) for line in lines]
    return [shlex.split(line[match.end() :], comments=True) for match, line in found if match]


COMMAND_LINES = [(page, words) for page in PAGES for words in command_lines(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in links(page):
        if not re.match(r"\w+:", link):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or heading in anchors(target), link


@pytest.mark.parametrize(("page", "words"), COMMAND_LINES, ids=lambda value: getattr(value, "stem", None))
def test_command_lines_parse(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [underscore(word) for word in words]
    build_parser(words).parse_args(words)


def test_every_command_is_found_and_wrong_ones_do_not_parse():
    assert {words[0] for _, words in COMMAND_LINES} == set(COMMANDS)
    text = "    torchrun --nnodes 2 \\\n        -m hybridvq.cli train --recipe vector --speed 9  # not an option\n"
    assert command_lines(text) == [["train", "--recipe", "vector", "--speed", "9"]]
    with pytest.raises(ArgumentError, match="speed"):
        build_parser(["train"]).parse_args(command_lines(text)[0])


LITTLE = {  # what is added to the commands of a page, so that they end soon
    "train": ["--steps", "3", "--batch-size", "4", "--eval-images", "4", "--model.dim", "8"],
    "compare": ["--steps", "2", "--batch_size", "4", "--eval_images", "4", "--overrides.model.dim", "8"],
    "train-prior": ["--options.width", "16", "--options.layers", "1", "--options.heads", "2", "--eval-images", "4"]
    + ["--steps", "2", "--batch-size", "4"],
    "fit-codec": ["--size", "16", "--images", "8", "--steps", "2"],
}


def run_little(words):
    """Run a command of a page, shortened."""
    assert main([*words, *LITTLE.get(words[0], [])]) == 0


def save_mine():
    """A small model where the pages say `runs/mine`, and its folder."""
    settings, folder = tiny.model("gain-shape"), Path("runs/mine/model")
    model = Tokenizer(settings.dim, settings.downsampling, settings.quantizer, settings.options)
    model.save_pretrained(folder)
    return model, folder


def test_the_readme_runs(tmp_path, monkeypatch):
    """Its commands one after another, with little to train on, and then its code."""
    readme = ROOT / "README.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for number in range(16):
        image = tmp_path / f"path/to/images/{'test' if number % 2 else 'train'}/a/{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        noise(number).resize((70, 66)).save(image)
    noise(1).resize((90, 70)).save("photo.jpg")
    words = [words for words in command_lines(readme.read_text()) if words[0] != "app"]  # which waits for a browser
    assert len(words) > 6
    for one in words:
        run_little(one)
    code = python_blocks("../README.md")
    assert len(code) > 2
    exec("\n".join(code), {})


def test_the_readme_is_short_and_its_numbers_are_published():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert all(len(line) <= 250 for line in text.splitlines())
    published = (DOCS / "results/kodak/README.md").read_text()
    claims = re.findall(r"(\d+\.\d)%(?! \|)", text)
    assert len(claims) == 3
    assert all(f"-{claim}%" in published for claim in claims)
    runs = [run for name in ("cifar10", "long") for run in read_json(DOCS / "results" / name / "result.json")["runs"]]
    mse = {run["recipe"]: run["test_mse"] for run in runs}
    measured = (
        mse["vector-published"],
        mse["projected-published"],
        mse["projected-published"] / mse["vector-published"],
    )
    assert "measured {:.4f} and {:.4f}, a ratio of {:.2f}".format(*measured) in " ".join(text.split())
    short = re.search(r"\| VQ-VAE \| 9.0 \| (\S+)", (DOCS / "results/README.md").read_text())
    assert short is not None
    assert f"ends at {short[1]} in" in text


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_page_is_listed_and_explains_its_words(page):
    if page.name == "index.md":
        return
    assert f"]({page.relative_to(DOCS)})" in (DOCS / "index.md").read_text()
    if page.name not in ("glossary.md", "reference.md", "at-scale.md", "fuzz.md"):
        assert "glossary.md" in page.read_text()


def test_the_glossary_has_the_words():
    words = (
        "code, gain, level, shape, structure, detail, raw-bits, entropy, healthy, published, f4, lambda, quality, step"
    )
    assert anchors(DOCS / "glossary.md") >= set(words.split(", "))


def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec("\n".join(python_blocks("tour.md")), {})
    made, kept = (
        {path.name: as_pixels(path).size for path in folder.iterdir()} for folder in (Path("tour"), DOCS / "tour")
    )
    assert made == kept
    assert set(re.findall(r"\(tour/(.*?)\)", (DOCS / "tour.md").read_text())) == made.keys()


def test_the_layer_page_runs():
    blocks = python_blocks("layer.md")
    assert len(blocks) > 3
    exec("\n".join(blocks), {})


def test_the_format_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, folder = save_mine()
    tokens = np.zeros((1, 1, 4, 4), int)
    fit_tables([(tokens, tokens)], model, weight_hash(folder), width=8, steps=1).save(folder)
    blocks = python_blocks("format.md")
    assert len(blocks) == 2
    exec("\n".join(blocks), {})


def test_the_compressing_page_runs(tmp_path, monkeypatch):
    """Its commands one after another, on photographs, with a small model for `runs/mine`."""
    monkeypatch.chdir(tmp_path)
    save_mine()
    Image.new("RGB", (130, 90), "teal").save("photo.jpg")
    Path("path/to/folder").mkdir(parents=True)
    Image.new("L", (20, 10)).save("path/to/folder/gray.png")
    commands = command_lines((DOCS / "compressing.md").read_text())
    names = [words[0] for words in commands]
    mine, hybrid = ["fit-codec", "compress", "decompress", "info", "fit-codec"], ["compress"] * 3 + ["decompress"] * 3
    assert names == ["compress", *mine, *hybrid, "train", "fit-codec"]
    for words in commands:
        run_little([word.replace("path/to/images", "photos") for word in words])
    assert sorted(path.name for path in Path("decompressed").iterdir()) == ["gray.png", "photo.png"]
    blocks = python_blocks("compressing.md")
    assert len(blocks) == 2
    exec("\n".join(blocks), {})


def test_the_tokenizing_page_runs(tmp_path, monkeypatch):
    """After the page's own command, with a small model and small images in place of those it names."""
    text = (DOCS / "tokenizing.md").read_text()
    command = re.findall(r"^    hybridvq (tokenize runs/mine .*)$", text, re.MULTILINE)[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    save_mine()
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


def test_the_adding_page_runs(tmp_path, monkeypatch):
    """Its files and command lines, in a folder of their own, with little to train on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(QUANTIZERS, "signs", None)  # taken out again at the end
    quantizer, tests, program = python_blocks("adding-a-quantizer.md")
    (recipe,) = blocks("adding-a-quantizer.md", "yaml")
    for name, content in {"signs.py": quantizer, "test_signs.py": tests, "signs.yaml": recipe}.items():
        (tmp_path / name).write_text(content)
    try:
        for name, test in vars(import_module("test_signs")).items():
            if name.startswith("test_"):
                test()
        exec(program, {})
        text = (DOCS / "adding-a-quantizer.md").read_text()
        lines = re.findall(r"^    python signs.py (.*)$", text, re.MULTILINE)
        train, evaluate, compare = (line.split() for line in lines)
        little = "--model.dim 8 --training.steps 4 --training.batch_size 4 --eval-images 8 --size 16"
        assert main([*train, *little.split()]) == 0
        assert main([*evaluate, "--limit", "8"]) == 0
        compare = [underscore(word) for word in compare]
        build_parser(compare).parse_args(compare)
    finally:
        for name in ("signs", "test_signs"):
            sys.modules.pop(name, None)


def test_the_python_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(16):
        image = tmp_path / f"path/to/images/{'test' if number % 4 == 0 else 'train'}/a/{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        noise(number).resize((40, 36)).save(image)
    noise(1).resize((90, 70)).save("photo.jpg")
    names = {}
    for block in python_blocks("python.md"):
        exec(block, names)
    assert names["image"].size == names["back"].size == (90, 70)
    assert names["array"].shape == (70, 90, 3)
    assert [image.size for image in names["images"]] == [(32, 32)] * 4
    assert (tmp_path / "samples" / "grid.png").is_file()
    assert [run["recipe"] for run in names["result"]["runs"]] == ["vector", "projected"]


def test_the_network_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (program,) = python_blocks("adding-a-network.md")
    exec(program, {})


@pytest.mark.parametrize(("page", "registry"), [("adding-a-loss.md", LOSSES), ("adding-a-logger.md", LOGGERS)])
def test_the_pages_on_losses_and_loggers_run(page, registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = set(
        re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (`.*?) \|", (DOCS / page).read_text(), re.MULTILINE)))
    )
    assert names == set(registry)
    before = dict(registry)
    try:
        exec("\n".join(python_blocks(page)), {})
    finally:
        for name in registry.keys() - before.keys():
            del registry[name]


def test_numbers_on_the_choosing_page_are_published():
    """Each error, and each time as a multiple of another, is in one of the tables that the page links to."""
    page = DOCS / "choosing.md"
    text = page.read_text()
    published = {
        number for link in links(page) for number in re.findall(r"\d+\.\d+", (DOCS / link.split("#")[0]).read_text())
    }
    errors = set(re.findall(r"\b0\.0\d{3,}\b", text))
    times = set(re.findall(r"(\d\.\d\d) times", text))
    assert len(errors) > 15
    assert len(times) > 5
    assert errors | times <= published


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
