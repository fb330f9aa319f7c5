"""What a folder is: one rule for names, endings, links and splits, whoever reads it."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridvq.data import open_images, open_stream
from hybridvq.data.listing import files_below
from hybridvq.data.splits import named_sides
from hybridvq.errors import DataError
from hybridvq.paths import image_files

from .conftest import MakeFolder
from .shards import SIDE, encoded, write_parquet, write_tar


def images_of(folder: Path, split: str) -> list[int]:
    images = open_images(str(folder), split, size=SIDE)  # type: ignore[arg-type]
    return [int(np.median(images.pixels(i))) for i in range(len(images))]


def streamed(folder: Path, split: str) -> list[int]:
    images = open_stream(str(folder), split, size=SIDE).take(1000)  # type: ignore[arg-type]
    return [int(np.median(images.pixels(i))) for i in range(len(images))]


def save(folder: Path, *names: str) -> Path:
    """Save image i under name i."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(number))
    return folder


def write_table(path: Path) -> Path:
    """Write what a downloader leaves beside its shards: where images came from, and none of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"url": ["https://example.org/1.jpg"], "key": ["000"]}), path)
    return path


# Names, endings and links


def test_every_reader_finds_the_same_images(tmp_path: Path) -> None:
    save(tmp_path / "else", "5.png")
    folder = save(tmp_path / "set", "0.png", "a/1.PNG", ".hidden.png", "a/._3.png", ".cache/4.png")
    (folder / "link").symlink_to(tmp_path / "else")
    (folder / "a" / "circle").symlink_to(folder)
    expected = ["0.png", "a/1.PNG", "link/5.png"]
    assert [path.as_posix() for path in image_files([folder]).values()] == expected
    assert sorted(images_of(folder, "train") + images_of(folder, "test")) == [0, 0, 1]


def test_two_links_to_one_folder_are_two_folders(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", "a/0.png", "a/1.png")
    (folder / "b").symlink_to(folder / "a")
    found = [path.relative_to(folder).as_posix() for path in files_below(folder, {".png"})]
    assert found == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert len(image_files([folder])) == 4


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", "0.png", "1.png")
    (folder / "cats").symlink_to(tmp_path / "gone")
    for read in (lambda: images_of(folder, "train"), lambda: image_files([folder])):
        with pytest.raises(DataError, match=r"set/cats is a link to a place that is not there; restore it"):
            read()
    (folder / "cats").rename(folder / "2.png")
    with pytest.raises(DataError, match=r"set/2\.png cannot be read as an image \(no such file\)"):
        images_of(folder, "train"), images_of(folder, "test")
    assert len(image_files([folder])) == 3


def test_a_folder_that_cannot_be_read_is_named(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("a/1.png", "b/2.png")
    scandir = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    for read in (lambda: images_of(folder, "train"), lambda: image_files([folder])):
        with pytest.raises(DataError, match=r"set/b cannot be read \(Permission denied\)"):
            read()


def test_shards_may_end_in_capitals(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p" / "TRAIN.PARQUET", range(3))
    write_parquet(tmp_path / "p" / "Test.Parquet", [9])
    assert images_of(tmp_path / "p", "train") == streamed(tmp_path / "p", "train") == [0, 1, 2]
    write_tar(tmp_path / "t" / "TRAIN.TAR", range(3))
    write_tar(tmp_path / "t" / "TEST.TAR", [9])
    assert streamed(tmp_path / "t", "train") == [0, 1, 2]


# What a folder is


def test_a_table_beside_tar_files_is_no_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train-0", "test-0"):
        write_tar(tmp_path / f"{name}.tar", range(3))
        write_table(tmp_path / f"{name}.parquet")
    assert streamed(tmp_path, "train") == [0, 1, 2]
    with pytest.raises(DataError, match="holds tar files, which can only be read as a stream"):
        images_of(tmp_path, "train")
    assert capsys.readouterr().err == ""


def test_a_table_beside_images_or_shards_is_no_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(save(tmp_path / "files", "train/0.png", "test/1.png") / "metadata.parquet")
    assert images_of(tmp_path / "files", "train") == [0]
    write_parquet(tmp_path / "hub" / "data" / "train-0.parquet", range(3))
    write_parquet(tmp_path / "hub" / "data" / "test-0.parquet", [9])
    write_table(tmp_path / "hub" / "metadata.parquet")
    assert images_of(tmp_path / "hub", "train") == streamed(tmp_path / "hub", "train") == [0, 1, 2]
    assert capsys.readouterr().err == (
        f"1 parquet file(s) without a column of images are left out, such as {tmp_path}/hub/metadata.parquet\n"
    )


def test_a_table_alone_is_named_with_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "metadata.parquet")
    for read in (images_of, streamed):
        with pytest.raises(DataError, match=r"metadata\.parquet has the columns \['url', 'key'\]; name its column"):
            read(tmp_path, "train")


def test_what_is_left_out_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "train.parquet", range(3))
    write_parquet(tmp_path / "test.parquet", [9])
    save(tmp_path, "a/1.png")
    write_tar(tmp_path / "x.tar", [1])
    assert images_of(tmp_path, "train") == images_of(tmp_path, "train") == [0, 1, 2]
    assert (
        capsys.readouterr().err == f"{tmp_path} is read for its parquet files; 2 other(s) are left out, such as x.tar\n"
    )


def test_images_are_read_beside_the_archive_that_they_came_in(tmp_path: Path) -> None:
    write_tar(save(tmp_path, "train/0.png", "test/1.png") / "all.tar", [5])
    assert images_of(tmp_path, "train") == [0]


# Splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training", "testing"),
        ("Train", "dev"),
        ("train", "eval"),
        ("train2017", "val2017"),
        ("set/train", "set/validation"),
        ("default/training", "default/evaluation"),
        ("imagenet_train", "imagenet_val"),
    ],
)
def test_split_words_of_folders(tmp_path: Path, train: str, test: str) -> None:
    folder = save(tmp_path / "images", *(f"{train}/{c}/{n}.png" for c in "ab" for n in (0, 1)), f"{test}/b/9.png")
    assert images_of(folder, "train") == [0, 1, 2, 3]
    assert images_of(folder, "test") == [4]
    assert open_images(str(folder), "test", size=SIDE).classes == ("a", "b")
    for kind, write in (("parquet", write_parquet), ("tar", write_tar)):
        write(tmp_path / kind / train / f"0000.{kind}", range(3))
        write(tmp_path / kind / test / f"0000.{kind}", [9])
        assert streamed(tmp_path / kind, "train") == [0, 1, 2]
        assert streamed(tmp_path / kind, "test") == [9]
    assert images_of(tmp_path / "parquet", "test") == [9]


@pytest.mark.parametrize(("train", "test"), [("training", "dev-0"), ("imagenet-train-0", "imagenet-val-0")])
def test_split_words_of_shards(tmp_path: Path, train: str, test: str) -> None:
    write_parquet(tmp_path / f"{train}.parquet", range(3))
    write_parquet(tmp_path / f"{test}.parquet", [9])
    assert images_of(tmp_path, "train") == streamed(tmp_path, "train") == [0, 1, 2]
    assert images_of(tmp_path, "test") == streamed(tmp_path, "test") == [9]


def test_splits_within_classes(tmp_path: Path) -> None:
    folder = save(tmp_path, "cat/train/0.png", "cat/test/1.png", "dog/train/2.png", "dog/test/3.png")
    assert images_of(folder, "train") == [0, 2]
    assert open_images(str(folder), "train", size=SIDE).classes == ("cat", "dog")


def test_classes_called_like_splits_are_classes(tmp_path: Path) -> None:
    """Such as a bullet train and a test tube among others."""
    folder = save(tmp_path, *(f"{kind}/{n}.png" for kind in ("bullet_train", "test_tube", "cup") for n in range(9)))
    assert len(images_of(folder, "train")) + len(images_of(folder, "test")) == 27
    assert open_images(str(folder), "train", size=SIDE).classes == ("bullet_train", "cup", "test_tube")


@pytest.mark.parametrize(
    "names", [("test/0.png", "more/1.png"), ("val/0.png", "test/1.png"), ("x/train/0.png", "1.png")]
)
def test_mixed_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]) -> None:
    folder = save(tmp_path, *names)
    images_of(folder, "train"), images_of(folder, "test")
    sentence = f"{folder} does not name both a train and a test split; all files are mixed, and a tenth is held out\n"
    assert capsys.readouterr().err == sentence


def test_files_of_neither_split_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path, "train/0.png", "test/1.png", "extra/2.png", "3.png")
    assert images_of(folder, "train") == [0]
    assert capsys.readouterr().err == f"{folder}: 2 file(s) in neither split are left out, such as 3.png\n"


def test_a_set_without_split_words_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images_of(save(tmp_path, "a/0.png", "b/1.png"), "train")
    assert capsys.readouterr().err == ""


def test_equal_names_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "default" / split / "0000.parquet", [1, b"junk"])
    for read in (images_of, streamed):
        with pytest.raises(DataError, match=r"default/train/0000\.parquet row 1 cannot be read as an image"):
            read(tmp_path, "train")


def test_parts_of_the_hub_are_named_by_the_same_words() -> None:
    assert named_sides({"training": 1, "dev": 2, "extra": 3}) == {"train": 1, "test": 2}
    assert named_sides({"train": 1, "validation": 2, "test": 3}) == {"train": 1, "test": 3}
    assert named_sides({"train": 1, "extra": 3}) is None
