import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridvq.data import images as images_module
from hybridvq.data import open_images
from hybridvq.data.images import Images, RecordImages
from hybridvq.data.memory import PixelMemory
from hybridvq.data.splits import hold_out
from hybridvq.errors import ConfigError, DataError

from .conftest import MakeFolder, noise

FORTY = [f"{'ab'[i % 2]}/{i}.png" for i in range(40)]


def labels(images: Images) -> list[str]:
    assert isinstance(images, RecordImages)
    return [images._records.name_of(record) for record in images._selected.tolist()]


def crops(images: Images) -> list[bytes]:
    return [images.crop(i, None).tobytes() for i in range(len(images))]


def test_flat_and_class_folders_hold_out_by_path(make_folder: MakeFolder) -> None:
    folder = make_folder(*FORTY, "top.PNG")
    train, test = (labels(open_images(str(folder), split, size=8)) for split in ("train", "test"))
    assert sorted(train + test) == sorted([*FORTY, "top.PNG"])
    assert 1 <= len(test) <= 10


def test_held_out_images_stay_when_others_are_added(make_folder: MakeFolder) -> None:
    folder = make_folder(*FORTY)
    before = set(labels(open_images(str(folder), "test", size=8)))
    make_folder(*(f"c/{i}.png" for i in range(40)))
    after = set(labels(open_images(str(folder), "test", size=8)))
    assert before == {label for label in after if not label.startswith("c/")}


@pytest.mark.parametrize("count", range(2, 12))
def test_both_sides_have_an_image(count: int) -> None:
    keys = [str(i) for i in range(count)]
    train, test = (hold_out(keys, split, "here").tolist() for split in ("train", "test"))
    assert train
    assert test
    assert sorted(train + test) == list(range(count))


def test_a_single_image_cannot_be_split(make_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match=r"set has 1 image\(s\), which cannot be split .* 'train' and 'test'"):
        open_images(str(make_folder("1.png")), "train", size=8)


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation", "Test"])
def test_split_folders_are_used(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder("train/a/1.png", f"{name}/a/2.png", "3.png")
    assert labels(open_images(str(folder), "train", size=8)) == ["train/a/1.png"]
    assert labels(open_images(str(folder), "test", size=8)) == [f"{name}/a/2.png"]


def test_test_comes_before_validation(make_folder: MakeFolder) -> None:
    folder = make_folder("train/1.png", "val/2.png", "test/3.png")
    assert labels(open_images(str(folder), "test", size=8)) == ["test/3.png"]


def test_hidden_and_other_files_are_ignored(make_folder: MakeFolder) -> None:
    folder = make_folder("train/1.png", "test/2.png", "train/.hidden.png", "train/.cache/3.png")
    for name in ("labels.txt", "labels.csv", "meta.json", "README.md", "Thumbs.db"):
        (folder / "train" / name).write_text("not an image")
    assert labels(open_images(str(folder), "train", size=8)) == ["train/1.png"]


def test_linked_folders_are_followed_and_circles_end(make_folder: MakeFolder) -> None:
    elsewhere = make_folder("1.png", "2.png", root="elsewhere")
    folder = make_folder("3.png")
    (folder / "link").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    found = [label for split in ("train", "test") for label in labels(open_images(str(folder), split, size=8))]
    assert sorted(found) == ["3.png", "link/1.png", "link/2.png"]


def test_resizing_then_cropping(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        gradient = np.zeros((20, 60, 3), dtype=np.uint8)
        gradient[:, 20:40] = 200
        Image.fromarray(gradient).save(tmp_path / split / "wide.png")
    test = open_images(str(tmp_path), "test", size=10)
    assert test.crop(0, None).shape == (10, 10, 3)
    assert (test.crop(0, None)[:, 2:-2] > 190).all()
    generator = np.random.default_rng(0)
    means = [open_images(str(tmp_path), "train", size=10).crop(0, generator).mean() for _ in range(20)]
    assert min(means) < 60
    assert max(means) > 150


def test_name_and_fingerprint_do_not_depend_on_the_place(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(*FORTY)
    moved = Path(shutil.copytree(folder, tmp_path / "other" / "set"))
    one, two = (open_images(str(place), "train", size=8) for place in (folder, moved))
    assert one.name == two.name == "set (folder)"
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 16
    assert int(one.fingerprint, 16) >= 0
    assert one.fingerprint != open_images(str(folder), "test", size=8).fingerprint
    assert one.fingerprint != open_images(str(folder), "train", size=8, limit=5).fingerprint
    noise(0, 33, 44).save(moved / labels(two)[0])
    assert open_images(str(moved), "train", size=8).fingerprint != one.fingerprint


def test_limit_is_evenly_spaced(make_folder: MakeFolder) -> None:
    folder = make_folder("test/0.png", *(f"train/{c}/{i}.png" for c in "abcd" for i in range(5)))
    limited = labels(open_images(str(folder), "train", size=8, limit=4))
    assert limited == [f"train/{c}/0.png" for c in "abcd"]
    assert len(open_images(str(folder), "train", size=8, limit=99)) == 20


BAD = {"bad-cut.png": "truncated", "bad-empty.jpg": "empty", "bad-text.jpg": "not an image"}


def write_bad(folder: Path, name: str) -> None:
    whole = (folder / "1.png").read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "not an image": b"<html>404</html>"}
    (folder / name).write_bytes(content[BAD[name]])


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_unreadable_files_are_named(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, budget: int, name: str
) -> None:
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", budget)
    folder = make_folder("train/1.png", "test/2.png")
    write_bad(folder / "train", name)
    with pytest.raises(DataError) as caught:
        crops(open_images(str(folder), "train", size=8))
    assert str(caught.value) == (
        f"{folder}/train/{name} cannot be read as an image ({BAD[name]}); remove it or pass --skip-unreadable"
    )


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_unreadable_files_are_skipped_and_listed(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", budget)
    folder = make_folder("train/1.png", "train/c.png", "test/2.png")
    for name in BAD:
        write_bad(folder / "train", name)
    images = open_images(str(folder), "train", size=8, skip_unreadable=True)
    assert labels(images) == ["train/1.png", "train/c.png"]
    assert images.skipped == [f"train/{name}: {reason}" for name, reason in BAD.items()]
    assert len(crops(images)) == 2


def test_nothing_readable(make_folder: MakeFolder) -> None:
    folder = make_folder("train/1.png", "test/2.png")
    (folder / "train" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no readable image in its train split \(1 skipped, .*1\.png: empty\)"):
        open_images(str(folder), "train", size=8, skip_unreadable=True)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no image files; give a folder of images"):
        open_images(str(tmp_path), "train", size=8)
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="train has no image files"):
        open_images(str(tmp_path), "train", size=8)


def test_large_sets_are_decoded_on_access(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(make_folder(*FORTY))
    kept = open_images(folder, "train", size=8)
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    lazy = open_images(folder, "train", size=8)
    assert isinstance(lazy, RecordImages)
    assert lazy._memory is None
    assert crops(lazy) == crops(kept)
    for images in (lazy, kept):
        before = images.crop(0, None)
        images.crop(0, None)[:] = 0
        np.testing.assert_array_equal(images.crop(0, None), before)
    assert lazy.fingerprint == kept.fingerprint
    assert crops(pickle.loads(pickle.dumps(lazy))) == crops(pickle.loads(pickle.dumps(kept)))


def test_memory_keeps_pictures_of_any_shape() -> None:
    pictures = [np.asarray(noise(i, 3 + i, 12 - i)) for i in range(9)]
    memory = PixelMemory()
    for at in (0, 2, 5):
        memory.extend(pictures[at : {0: 2, 2: 5, 5: 9}[at]])
    memory.extend([])
    for i, picture in enumerate(pictures):
        np.testing.assert_array_equal(memory[i], picture)


def mini_imagenet(make_folder: MakeFolder) -> Path:
    folder = make_folder(*(f"images/{i}.png" for i in range(6)))
    (folder / "train.csv").write_text("filename,label\n4.png,n1\n0.png,n1\n4.png,n1\n")
    (folder / "val.csv").write_text("filename,label\n1.png,n2\n")
    (folder / "test.csv").write_text("filename,label\n2.png,n3\n5.png,n3\n")
    return folder


def test_mini_imagenet_uses_its_tables(make_folder: MakeFolder) -> None:
    folder = mini_imagenet(make_folder)
    assert labels(open_images(str(folder), "train", size=8)) == ["4.png", "0.png"]
    assert labels(open_images(str(folder), "test", size=8)) == ["2.png", "5.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"file,label\n1.png,a\n", r"test\.csv has the columns \['file', 'label'\], not 'filename'"),
        (b"", r"test\.csv has the columns \[\], not 'filename'"),
        (b"filename,label\n", r"test\.csv lists no image"),
        (b"\xff\xfe\x00\x81", r"test\.csv cannot be read as a table"),
        (b"filename\nnone.png\n", r"images/none\.png cannot be read as an image \(no such file\)"),
        (None, r"test\.csv cannot be read as a table \(No such file"),
    ],
)
def test_mini_imagenet_failures_name_the_file(make_folder: MakeFolder, text: bytes | None, message: str) -> None:
    folder = mini_imagenet(make_folder)
    (folder / "test.csv").unlink()
    if text is not None:
        (folder / "test.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        open_images(str(folder), "test", size=8)


def test_a_listed_file_must_exist_even_in_a_large_set(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    folder = mini_imagenet(make_folder)
    (folder / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"images/2\.png is listed but cannot be found"):
        open_images(str(folder), "test", size=8)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "nothing-here",
        "/no/such/place",
        "./photos",
        "x/y/z",
        "data/gone.parquet",
        "~nobody-of-that-name/x/y",
    ],
)
def test_strings_that_name_nothing(data: str) -> None:
    with pytest.raises(DataError, match=r"is not a data set: .* 'photos', .* hub id"):
        open_images(data, "train", size=8)


def test_single_files_are_refused(make_folder: MakeFolder) -> None:
    path = make_folder("1.png") / "1.png"
    with pytest.raises(DataError, match=r"1\.png is a single file, not \.parquet"):
        open_images(str(path), "train", size=8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission(make_folder: MakeFolder) -> None:
    folder = make_folder("1.png")
    folder.chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            open_images(str(folder), "train", size=8)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 0}, "size 0"), ({"limit": 0}, "limit of 0"), ({"split": "dev"}, "split 'dev' is not known")],
)
def test_settings_that_cannot_be_used(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_images("photos", **{"split": "train", "size": 8, **options})  # type: ignore[arg-type]
