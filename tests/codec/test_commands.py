"""compress, decompress and info, from files to files, and one sentence for what can go wrong."""

import re

import numpy as np
import pytest
from PIL import Image

from codec import models
from hybridvq import CodecSettings
from hybridvq.cli import main
from hybridvq.codec import header_of, write


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder with a color and a gray image in it, and one beside it; the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.fromarray(models.photo(30, 41)).save("in/color.png")
    Image.fromarray(models.photo(17, 64)[..., 0]).save("in/deep/gray.png")
    Image.fromarray(models.photo(8, 8)).save("alone.bmp")
    return tmp_path


@pytest.fixture
def complaint(complaint):
    """As for every command, of the words in one sentence."""
    return lambda words: complaint(*words.split())


def test_there_and_back(images, folder, codec, capsys):
    assert main(["compress", "in", "alone.bmp", "--model", str(folder), "-o", "files"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.fullmatch(
        r"in/color.png: \d+ bytes, \d+\.\d{3} bits per pixel -> files/color.hvq\n"
        r"in/deep/gray.png: \d+ bytes, \d+\.\d{3} bits per pixel -> files/deep/gray.hvq\n"
        r"alone.bmp: \d+ bytes, \d+\.\d{3} bits per pixel -> files/alone.hvq\n",
        out,
    )
    assert (images / "files" / "color.hvq").read_bytes() == codec.compress(models.photo(30, 41))
    assert main(["decompress", "files", "--model", str(folder), "-o", "back"]) == 0
    assert "files/deep/gray.hvq: 64x17 pixels -> back/deep/gray.png\n" in capsys.readouterr().out
    assert sorted(path.name for path in (images / "back").rglob("*.png")) == ["alone.png", "color.png", "gray.png"]
    with Image.open("back/deep/gray.png") as gray, Image.open("back/color.png") as color:
        assert (gray.mode, gray.size) == ("L", (64, 17))
        np.testing.assert_array_equal(color, codec.decompress((images / "files" / "color.hvq").read_bytes()))


def test_one_file_to_one_file(images, folder, codec, capsys):
    words = ["--model", str(folder), "--mode", "static", "--rate-weight", "0.05"]
    assert main(["compress", "alone.bmp", "-o", "a/b.hvq", *words]) == 0
    settings = CodecSettings(mode="static", rate_weight=0.05)
    assert (images / "a" / "b.hvq").read_bytes() == codec.compress(models.photo(8, 8), settings)
    assert main(["decompress", "a/b.hvq", "-o", "c.png", "--model", str(folder)]) == 0
    assert (images / "c.png").is_file()
    assert capsys.readouterr().err == ""


def test_info_accounts_for_every_byte(images, folder, codec, capsys):
    data = codec.compress(models.photo(30, 41))
    (images / "a.hvq").write_bytes(data)
    assert main(["info", "a.hvq"]) == 0
    out = capsys.readouterr().out
    sizes = [int(size.replace(",", "")) for size in re.findall(r"([\d,]+) bytes", out)]
    assert sum(sizes[:-1]) == sizes[-1] == len(data)
    for said in ("41x30 pixels, 11x8 positions", "K = 120, L = 4, 1 of 1 stages", codec.tables.model[:16]):
        assert said in out


def thin(codec) -> bytes:
    """A file of a kilobyte that would be decoded one position after the other, 262,144 times."""
    return write(header_of(codec.tables, 1, 2**20, 4), [bytes(700)])


def test_info_tells_of_what_is_not_decoded(images, codec, capsys):
    (images / "thin.hvq").write_bytes(thin(codec))
    assert main(["info", "thin.hvq"]) == 0
    assert "1048576x1 pixels, 262144x1 positions" in capsys.readouterr().out


def test_unreadable_images(images, folder, capsys, complaint):
    (images / "in" / "bad.png").write_bytes(b"junk")
    assert "in/bad.png cannot be read as an image (not an image)" in complaint(f"compress in --model {folder}")
    assert list((images / "compressed").glob("*") if (images / "compressed").exists() else []) == []
    assert main(["compress", "in", "--model", str(folder), "--skip-unreadable"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.startswith("left out 1 unreadable images:\n  in/bad.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compress alone.bmp", "arguments are required: images; give `hybridvq compress MODEL IMAGES`"),
        ("compress nowhere.png --model MODEL", "there is no file or folder nowhere.png; give image files"),
        ("compress empty --model MODEL", "empty holds no image files"),
        ("compress alone.bmp --model nowhere", "there is no model folder nowhere"),
        ("compress alone.bmp --model MODEL --stages 2", "stages is 2, and the model has 1"),
        ("compress alone.bmp --model MODEL --target-bpp 1 --target-psnr 30", "cannot both be met"),
        ("compress alone.bmp --model MODEL --target-bpp 0.01", "target_bpp 0.01 is out of reach"),
        ("compress alone.bmp --model MODEL --mode best", "mode"),
        ("compress in alone.bmp --model MODEL -o one.hvq", "one.hvq is one file, and there are 3 to write"),
        ("compress in in2 --model MODEL", "would both be written to compressed/color.hvq"),
        ("compress alone.bmp --model MODEL -o alone.bmp/x", "alone.bmp/x/alone.hvq cannot be written"),
        ("decompress in --model MODEL", "in holds no .hvq files; give .hvq files or a folder of them"),
        ("decompress alone.bmp --model MODEL", "alone.bmp is not an .hvq file"),
        ("decompress a.hvq --model MODEL --max-pixels 10", "raise max_pixels"),
        ("decompress a.hvq --model MODEL --max-pixels 0", "max_pixels is 0; it must be at least 1"),
        (
            "compress alone.bmp --model MODEL --rate-weight 1e308",
            "rate_weight is 1e+308; it must be at most",
        ),
        ("compress alone.bmp --model MODEL --target-bpp 1 --rate-weight 0.1", "give it without rate_weight"),
        ("decompress cut.hvq --model MODEL", "cut.hvq is cut off"),
        ("decompress thin.hvq --model MODEL", "thin.hvq claims a long and thin image of 262144 wavefronts"),
        ("info nowhere.hvq", "nowhere.hvq cannot be read or written (No such file or directory)"),
        ("info in", "in cannot be read or written (Is a directory)"),
        ("info cut.hvq", "cut.hvq is cut off"),
    ],
)
def test_wrong_words(images, folder, codec, complaint, words, message):
    (images / "empty").mkdir()
    (images / "in2").mkdir()
    Image.fromarray(models.photo(4, 4)).save("in2/color.jpg")
    data = codec.compress(models.photo(8, 8))
    (images / "a.hvq").write_bytes(data)
    (images / "cut.hvq").write_bytes(data[:-3])
    (images / "thin.hvq").write_bytes(thin(codec))
    before = sorted(images.rglob("*"))
    assert message in complaint(words.replace("MODEL", str(folder)))
    assert sorted(images.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(images, folder, monkeypatch, error, capsys):
    (images / "out").mkdir()
    (images / "out" / "alone.hvq").write_bytes(b"the old one")

    def stop(descriptor):
        raise error

    monkeypatch.setattr("os.fsync", stop)
    assert main(["compress", "alone.bmp", "--model", str(folder), "-o", "out"]) in (2, 130)
    assert [path.name for path in (images / "out").iterdir()] == ["alone.hvq"]
    assert (images / "out" / "alone.hvq").read_bytes() == b"the old one"
    assert capsys.readouterr().err
