"""Names that no terminal can show, and what --out names: in every command, one rule."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from hybridvq import load_tokenizer, open_images
from hybridvq.app import markup
from hybridvq.cli import main
from hybridvq.data import EvalBatches
from hybridvq.printing import printable, say
from hybridvq.report.result import SCHEMA, gather
from test_tokenizer import tokenizer

# Not UTF-8, a sequence that clears the screen, one byte that begins another, a line break, and text read backwards.
BAD = os.fsdecode(b"a\xff") + "\x1b[2J\x9b\nx\u202e.png"
SHOWN = r"a\xff\x1b[2J\x9b\nx\u202e.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "in" / BAD
    path.parent.mkdir()
    Image.effect_noise((16, 16), 90).save(path, "PNG")
    return path


def plain(text):
    return text.isprintable() or not [line for line in text.split("\n") if not line.isprintable()]


def test_what_is_printable():
    assert printable(BAD) == SHOWN
    assert printable("naïve  猫 🐈.png") == "naïve  猫 🐈.png"
    assert printable("\udfff\ud800\t\x00\u2028") == r"\udfff\ud800\t\x00\u2028"
    assert printable(Path("a") / BAD) == f"a/{SHOWN}"


def test_lines_and_errors_are_printable(capsys):
    say(BAD)
    say(BAD, error=True)
    out, err = capsys.readouterr()
    assert out == err == SHOWN + "\n"


def test_images_of_any_name_are_reconstructed(model, picture, tmp_path, capsys):
    assert main(["reconstruct", str(model), str(picture.parent), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert f"in/{SHOWN}: " in out
    assert f"out/{SHOWN}\n" in out
    assert err == ""
    assert plain(out)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [BAD]


def test_complaints_of_any_name_are_one_line(model, picture, tmp_path, capsys):
    picture.write_bytes(b"junk")
    words = ["reconstruct", str(model), str(picture), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "x\\u202e.png cannot be read as an image" in err
    assert err.count("\n") == 1
    assert plain(err)
    assert main([*words, "--skip-unreadable"]) == 0
    err = capsys.readouterr().err
    assert SHOWN in err
    assert err.count("\n") == 2
    assert plain(err)


def test_a_terminal_that_lacks_the_letters(model, tmp_path, monkeypatch):
    Image.effect_noise((16, 16), 90).save(tmp_path / "naïve-猫.png")
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii", write_through=True))
    assert main(["reconstruct", str(model), str(tmp_path / "naïve-猫.png"), "--out", str(tmp_path / "out")]) == 0
    assert rb"na\xefve-\u732b.png: " in content.getvalue()


def test_folders_of_any_name_are_evaluated(model, tmp_path, capsys):
    for split in ("train", "test"):
        folder = tmp_path / BAD / split
        folder.mkdir(parents=True)
        Image.effect_noise((16, 16), 90).save(folder / "a.png")
        (folder / BAD).write_bytes(b"junk")
    words = ["evaluate", str(model), "--data", str(tmp_path / BAD), "--size", "16", "--skip-unreadable"]
    assert main([*words, "--json", str(tmp_path / "r.json")]) == 0
    out, err = capsys.readouterr()
    assert plain(out)
    assert plain(err)
    assert f"{SHOWN}: not an image" in err
    assert json.loads((tmp_path / "r.json").read_text())["data"] == f"{BAD} (folder)"
    images = open_images(str(tmp_path / BAD), "test", size=16, skip_unreadable=True)
    assert load_tokenizer(model).encode(EvalBatches(images, 1)[0]).codes is not None


def test_a_result_and_a_page_show_names_escaped():
    run = {"recipe": BAD, "title": BAD, "group": "healthy", "description": "", "seed": 0}
    [recipe] = gather({"schema": SCHEMA, "runs": [run]})
    assert (recipe.name, recipe.title) == (SHOWN, SHOWN)
    assert SHOWN in markup.problem(BAD)
    assert SHOWN in markup.table([BAD], [])


# What --out names

FOLDERS = [
    ["train", "--recipe", "vector"],
    ["train-prior", "MODEL"],
    ["tokenize", "MODEL"],
    ["export", "MODEL"],
    ["sample", "cifar10-prior"],
    ["compare", "--recipes", "vector"],
]
FILES = [(["reconstruct", "MODEL", "IMAGE"], ".png"), (["compress", "IMAGE", "--model", "MODEL"], ".hvq")]
FILES += [(["decompress", "FILE.hvq", "--model", "MODEL"], ".png")]


def complaint(words, model, image, out, capsys):
    names = {"MODEL": str(model), "IMAGE": str(image)}
    assert main([*(names.get(word, word) for word in words), "--out", str(out)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", FOLDERS, ids=lambda words: words[0])
def test_a_folder_has_no_name_of_a_file(words, model, picture, tmp_path, capsys):
    out = tmp_path / "out.jpg"
    assert complaint(words, model, picture, out, capsys).endswith("out.jpg, the name of a file; give a folder\n")
    out.write_text("mine")
    assert complaint(words, model, picture, out, capsys).endswith("out.jpg, which is a file; give a folder\n")
    assert out.read_text() == "mine"


@pytest.mark.parametrize(("words", "ending"), FILES, ids=lambda value: value[0])
def test_one_file_has_the_ending_of_its_kind(words, ending, model, picture, tmp_path, capsys):
    for name in ("out.jpg", "out.parquet"):
        err = complaint(words, model, picture, tmp_path / name, capsys)
        assert err.endswith(f"{name}, the name of a file; give a folder, or one {ending} file\n")
        assert not (tmp_path / name).exists()


def test_one_image_is_reconstructed_to_one_file(model, picture, tmp_path, capsys):
    out = tmp_path / "b.PNG"
    assert main(["reconstruct", str(model), str(picture), "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert (image.format, image.size) == ("PNG", (16, 16))
    Image.new("L", (4, 4)).save(picture.parent / "second.png")
    err = complaint(["reconstruct", "MODEL", str(picture.parent)], model, picture, out, capsys)
    assert "b.PNG is one file, and there are 2 to write; give a folder as --out" in err
    assert "is the file that is read" in complaint(["reconstruct", "MODEL", "IMAGE"], model, picture, picture, capsys)


def test_a_folder_that_is_there_may_have_any_name(model, picture, tmp_path):
    out = tmp_path / "v1.png"
    out.mkdir()
    assert main(["reconstruct", str(model), str(picture), "--out", str(out)]) == 0
    assert (out / BAD).is_file()
    assert main(["reconstruct", str(model), str(picture), "--out", str(tmp_path / "v1.2")]) == 0


def test_numbers_go_to_a_file(model, tmp_path, capsys):
    assert main(["evaluate", str(model), "--json", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"hybridvq: --json is {tmp_path}, which is a folder; give a file\n"
