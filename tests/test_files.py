import math

import numpy as np
import pytest
from PIL import Image

import tiny
from hybridvq import ConfigError, DataError
from hybridvq.data import photo_files
from hybridvq.files import reconstruct_files
from hybridvq.paths import image_files
from hybridvq.writing import sole_writer
from test_tokenizer import tokenizer


def draw(path, width=9, height=7, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def reconstructed(tmp_path, *sources, **options):
    return list(reconstruct_files(tokenizer(), sources, tmp_path / "out", **options))


def test_photos_are_the_sample_photographs_unless_there_is_such_a_folder(tmp_path, monkeypatch):
    assert [*image_files(["photos"])] == photo_files()
    monkeypatch.chdir(tmp_path)
    own = draw(tmp_path / "photos" / "a.png")
    assert [path.resolve() for path in image_files(["photos"])] == [own]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
@pytest.mark.parametrize(("width", "height"), [(9, 7), (8, 8), (1, 1), (5, 16)])
def test_any_size_and_mode(tmp_path, mode, width, height):
    [file] = reconstructed(tmp_path, draw(tmp_path / "a.png", width, height, mode))
    with Image.open(file.written) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (width, height))
    positions = math.ceil(width / 4) * math.ceil(height / 4)
    assert file.rate_bpp == pytest.approx(positions * 6 / (width * height))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_the_error_is_that_of_the_written_file(tmp_path):
    [file] = reconstructed(tmp_path, draw(tmp_path / "a.png", 16, 16))
    a, b = (np.asarray(Image.open(path).convert("RGB"), float) / 127.5 - 1 for path in (file.source, file.written))
    assert file.psnr_db == pytest.approx(10 * math.log10(4 / np.mean((a - b) ** 2)), abs=0.01)


def test_folders_and_files(tmp_path):
    draw(tmp_path / "in" / "b.png")
    draw(tmp_path / "in" / "deep" / "a.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    draw(tmp_path / "c.bmp")
    files = reconstructed(tmp_path, tmp_path / "in", tmp_path / "c.bmp")
    assert [file.written.relative_to(tmp_path / "out").as_posix() for file in files] == ["b.png", "deep/a.png", "c.png"]


def test_equal_names_in_class_folders_stay_apart(tmp_path):
    for name in ("1.png", "cat/1.png", "dog/1.png", ".hidden.png", "dog/._1.png", "cat/2.JPEG"):
        draw(tmp_path / "in" / name)
    draw(tmp_path / "else" / "1.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "else")
    written = [
        file.written.relative_to(tmp_path / "out").as_posix() for file in reconstructed(tmp_path, tmp_path / "in")
    ]
    assert written == ["1.png", "cat/1.png", "cat/2.png", "dog/1.png", "link/1.png"]
    assert all((tmp_path / "out" / name).is_file() for name in written)


def test_a_linked_image_is_written_too(tmp_path):
    path = draw(tmp_path / "in" / "a" / "1.png")
    (tmp_path / "in" / "b").symlink_to(path.parent)
    assert [file.written.parent.name for file in reconstructed(tmp_path, tmp_path / "in")] == ["a", "b"]


def test_one_file_twice_is_one(tmp_path):
    path = draw(tmp_path / "in" / "a.png")
    assert len(reconstructed(tmp_path, path, tmp_path / "in", path)) == 1


def test_two_images_of_one_name(tmp_path):
    sources = [draw(tmp_path / "x" / "first.png"), draw(tmp_path / "x" / "a.png"), draw(tmp_path / "y" / "a.jpg")]
    with pytest.raises(ConfigError, match=r"y/a\.jpg and .*x/a\.png would both be written to .*out/a\.png; rename"):
        reconstructed(tmp_path, *sources)
    assert not (tmp_path / "out").exists()


def test_an_original_is_not_overwritten(tmp_path):
    path = draw(tmp_path / "out" / "a.png")
    before = path.read_bytes()
    with pytest.raises(
        ConfigError, match=r"a\.png would be written over the file .*a\.png, which is read; choose another --out"
    ):
        reconstructed(tmp_path, path)
    assert path.read_bytes() == before


def test_missing_and_empty_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no image files; give image files"):
        reconstructed(tmp_path, tmp_path / "empty")
    with pytest.raises(DataError, match=r"there is no file or folder .*nowhere"):
        reconstructed(tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["truncated", "empty", "junk", "huge"])
def test_unreadable_images_stop_or_are_skipped(tmp_path, damage):
    good, bad = draw(tmp_path / "good.png", 40, 40), draw(tmp_path / "bad.png", 40, 40)
    whole = bad.read_bytes()
    content = {"truncated": whole[:1000], "empty": b"", "junk": b"junk", "huge": tiny.huge_png(whole)}
    bad.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"bad\.png cannot be read as an image \(.*\); give another file"):
        reconstructed(tmp_path, bad, good)
    skipped = []
    assert [file.source for file in reconstructed(tmp_path, bad, good, skipped=skipped)] == [good]
    assert len(skipped) == 1
    assert "bad.png" in skipped[0]


def test_two_at_once_do_not_mix_their_pictures(tmp_path):
    path = draw(tmp_path / "a.png")
    with sole_writer(tmp_path / "out"), pytest.raises(ConfigError, match="out is being written by another process"):
        reconstructed(tmp_path, path)
    assert len(reconstructed(tmp_path, path)) == 1


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match=r"out cannot be written \(.*\); choose another --out"):
        reconstructed(tmp_path, draw(tmp_path / "a.png"))
