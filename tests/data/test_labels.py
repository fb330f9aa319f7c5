"""The class of each image is the one written for it, under the same number in both splits."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridvq.data import Images, open_images
from hybridvq.data import images as images_module
from hybridvq.data.parquet import ParquetRecords
from hybridvq.errors import DataError

from .conftest import MakeFolder, noise, png, structs

PICTURES = {np.asarray(noise(seed, 8, 8)).tobytes(): seed for seed in range(64)}


def open_set(data: Path | str, split: str, **options: Any) -> Images:
    return open_images(str(data), split, size=8, **options)  # type: ignore[arg-type]


def shown(data: Path | str, split: str, **options: Any) -> dict[int, str]:
    """{seed of a noise image: its class}, the image told by its pixels."""
    images = open_set(data, split, **options)
    assert images.classes is not None
    assert images.class_ids is not None
    assert images.class_ids.dtype == np.int64
    assert images.class_ids.shape == (len(images),)
    seeds = [PICTURES[images.crop(i, None).tobytes()] for i in range(len(images))]
    return {seed: images.classes[number] for seed, number in zip(seeds, images.class_ids.tolist(), strict=True)}


def classes(data: Path | str) -> tuple[str, ...] | None:
    """The classes, which both splits agree on."""
    train, test = (open_set(data, split).classes for split in ("train", "test"))
    assert train == test
    return train


def save(folder: Path, *names: str) -> Path:
    """Save noise image i under name i."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed))
    return folder


# Folders


def test_class_folders_beside_each_other(tmp_path: Path) -> None:
    kinds = [("dog", "cat", "eel")[seed % 3] for seed in range(40)]
    folder = save(tmp_path, *(f"{kind}/{seed}.png" for seed, kind in enumerate(kinds)))
    assert classes(folder) == ("cat", "dog", "eel")
    train, test = shown(folder, "train"), shown(folder, "test")
    assert test
    assert train | test == dict(enumerate(kinds))
    limited = shown(folder, "train", limit=5)
    assert len(limited) == 5
    assert limited.items() <= train.items()


def test_class_folders_in_each_split(tmp_path: Path) -> None:
    """A class that one split lacks has its number there all the same."""
    folder = save(tmp_path, "train/b/0.png", "train/d/1.png", "val/a/2.png", "val/b/3.png", "4.png")
    assert classes(folder) == ("a", "b", "d")
    assert shown(folder, "train") == {0: "b", 1: "d"}
    assert shown(folder, "test") == {2: "a", 3: "b"}


@pytest.mark.parametrize(
    "names",
    [
        ("0.png", "1.png"),
        ("only/0.png", "only/1.png"),
        ("a/0.png", "b/1.png", "2.png"),
        ("a/0.png", "b/1.png", "b/more/2.png"),
        ("train/0.png", "test/1.png"),
        ("train/a/0.png", "train/b/1.png", "test/2.png"),
        ("train/a/images/0.png", "train/b/images/1.png", "test/a/images/2.png"),
    ],
)
def test_other_folders_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = save(tmp_path, *names)
    assert classes(folder) is None
    assert open_set(folder, "train").class_ids is None


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_unreadable_images_shift_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", budget)
    names = [f"train/{'ab'[seed % 2]}/{seed}.png" for seed in range(8)]
    folder = save(tmp_path, *names, "test/a/8.png")
    for seed in (0, 3, 6):
        (folder / names[seed]).write_bytes(b"junk")
    expected = {seed: "ab"[seed % 2] for seed in (1, 2, 4, 5, 7)}
    assert shown(folder, "train", skip_unreadable=True) == expected


def test_mini_imagenet_numbers_the_classes_of_all_tables(make_folder: MakeFolder) -> None:
    folder = save(make_folder(), *(f"images/{seed}.png" for seed in range(6)))
    (folder / "train.csv").write_text("filename,label\n4.png,n3\n0.png,n1\n4.png,n3\n")
    (folder / "val.csv").write_text("filename,label\n1.png,n0\n")
    (folder / "test.csv").write_text("filename,label\n2.png,n2\n5.png,n2\n")
    assert classes(folder) == ("n0", "n1", "n2", "n3")
    assert shown(folder, "train") == {4: "n3", 0: "n1"}
    assert shown(folder, "test") == {2: "n2", 5: "n2"}
    for text in ("filename\n2.png\n", "filename,label\n2.png,n2\n5.png,\n", "filename,label\n2.png\n"):
        (folder / "test.csv").write_text(text)
        assert open_set(folder, "test").classes is None
        assert shown(folder, "train") == {4: "n3", 0: "n1"}


def test_the_photographs_have_none() -> None:
    images = open_images("photos", "test", size=64, limit=3)
    assert images.classes is images.class_ids is None


# Tables


def write(path: Path, labels: Any, start: int = 0, names: list[str] | None = None, group: int = 4) -> None:
    """Write the noise images from `start` on, with these labels; `names` as `datasets` writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": structs([png(start + i) for i in range(len(labels))]), "label": labels})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)


def test_names_in_the_schema(tmp_path: Path) -> None:
    names = ["zebra", "ant", "owl", "yak"]
    write(tmp_path / "train-0.parquet", [3, 0, 1, 1, 0], names=names)
    write(tmp_path / "train-1.parquet", [1, 3], start=5, names=names)
    write(tmp_path / "test.parquet", [2, 0], start=7, names=names)
    assert classes(tmp_path) == ("zebra", "ant", "owl", "yak")
    assert shown(tmp_path, "train") == dict(enumerate(["yak", "zebra", "ant", "ant", "zebra", "ant", "yak"]))
    assert shown(tmp_path, "test") == {7: "owl", 8: "zebra"}


def test_datasets_writes_names_that_are_read(tmp_path: Path) -> None:
    """The metadata is what `datasets` itself writes, and not only what this file thinks it does."""
    part(["owl", "ant", "ant"], names=["owl", "ant"]).to_parquet(tmp_path / "train.parquet")
    part(["ant"], names=["owl", "ant"], start=3).to_parquet(tmp_path / "test.parquet")
    assert classes(tmp_path) == ("owl", "ant")
    assert shown(tmp_path, "train") == {0: "owl", 1: "ant", 2: "ant"}


def test_numbers_without_names(tmp_path: Path) -> None:
    """In the order of the numbers, though "10" sorts before "2"; the test split may have one of its own."""
    write(tmp_path / "train.parquet", pa.array([10, 2, 2, 0], pa.int16()))
    write(tmp_path / "test.parquet", pa.array([2, 7], pa.uint8()), start=4)
    assert classes(tmp_path) == ("0", "2", "7", "10")
    assert shown(tmp_path, "train") == {0: "10", 1: "2", 2: "2", 3: "0"}
    assert shown(tmp_path, "test") == {4: "2", 5: "7"}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_strings(tmp_path: Path, kind: pa.DataType) -> None:
    write(tmp_path / "train.parquet", pa.array(["owl", "ant", "owl"], kind))
    write(tmp_path / "test.parquet", pa.array(["bee", "ant"], kind), start=3)
    assert classes(tmp_path) == ("ant", "bee", "owl")
    assert shown(tmp_path, "train") == {0: "owl", 1: "ant", 2: "owl"}
    assert shown(tmp_path, "test") == {3: "bee", 4: "ant"}


@pytest.mark.parametrize("other", [["ant", "owl"], None])
def test_tables_that_do_not_agree_on_names(tmp_path: Path, other: list[str] | None) -> None:
    """By name where there are names, whatever their numbers."""
    write(tmp_path / "train.parquet", [0, 1, 1], names=["owl", "ant"])
    write(tmp_path / "test.parquet", [0, 1], start=3, names=other)
    assert classes(tmp_path) == (("ant", "owl") if other else ("0", "1", "ant", "owl"))
    assert shown(tmp_path, "train") == {0: "owl", 1: "ant", 2: "ant"}
    assert shown(tmp_path, "test") == ({3: "ant", 4: "owl"} if other else {3: "0", 4: "1"})


def test_rows_held_out_by_hash_and_damaged_rows(tmp_path: Path) -> None:
    labels = [seed % 5 for seed in range(40)]
    write(tmp_path / "x.parquet", labels)
    path = tmp_path / "x.parquet"
    expected = {seed: str(label) for seed, label in enumerate(labels)}
    train, test = shown(path, "train"), shown(path, "test")
    assert test
    assert train | test == expected
    rows = [b"junk" if seed % 7 == 0 else png(seed) for seed in range(40)]
    pq.write_table(pa.table({"label": labels, "image": structs(rows)}), path)
    found = shown(path, "train", skip_unreadable=True) | shown(path, "test", skip_unreadable=True)
    assert found == {seed: label for seed, label in expected.items() if seed % 7}


@pytest.mark.parametrize("labels", [[0, None], [0.5, 1.5], [[0], [1]], [None, None], [True, False]])
def test_columns_that_are_no_class_labels(tmp_path: Path, labels: list[Any]) -> None:
    write(tmp_path / "train.parquet", labels)
    write(tmp_path / "test.parquet", [3, 4], start=2)
    assert open_set(tmp_path, "train").classes is None
    assert shown(tmp_path, "test") == {2: "3", 3: "4"}


def test_hidden_test_labels_are_none(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [1, 0], names=["owl", "ant"])
    write(tmp_path / "test.parquet", [-1, -1], start=2, names=["owl", "ant"])
    assert shown(tmp_path, "train") == {0: "ant", 1: "owl"}
    assert open_set(tmp_path, "test").classes is None


def test_a_number_without_a_name(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [1, 2], names=["owl", "ant"])
    write(tmp_path / "test.parquet", [1], names=["owl", "ant"])
    images = open_set(tmp_path, "train")
    with pytest.raises(DataError, match=r"train\.parquet names 2 classes, but its column 'label' holds 2; write"):
        _ = images.classes


def test_labels_are_read_alone_and_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    write(tmp_path / "train.parquet", [1, 0, 1, 1, 0])
    write(tmp_path / "test.parquet", [1], start=5)
    whole = bytearray((tmp_path / "train.parquet").read_bytes())
    columns = [pq.read_metadata(tmp_path / "train.parquet").row_group(0).column(i) for i in range(3)]
    place = {column.path_in_schema: column.dictionary_page_offset or column.data_page_offset for column in columns}

    def damage(column: str) -> Images:
        content = whole.copy()
        content[place[column] : place[column] + 30] = b"\xff" * 30
        (tmp_path / "train.parquet").write_bytes(content)
        return open_set(tmp_path, "train")

    monkeypatch.setattr(ParquetRecords, "read", lambda *_: pytest.fail("an image was read"))
    images = damage("image.bytes")
    assert images.class_ids is not None
    assert images.class_ids.tolist() == [1, 0, 1, 1, 0]
    images = damage("label")
    with pytest.raises(DataError, match=r"the column 'label' of .*train\.parquet cannot be read \(.*\); download"):
        _ = images.classes


def test_labels_are_no_part_of_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets are known by it, so it stays what it was before there were labels: paths and sizes."""
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    for size, name in enumerate(("train/a/0.png", "train/b/1.png", "test/c/2.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x" * size)
    images = open_set(tmp_path, "train")
    assert images.classes == ("a", "b", "c")
    lines = b"train\ntrain/a/0.png\t0\ntrain/b/1.png\t1\n"
    assert images.fingerprint == hashlib.sha256(lines).hexdigest()[:16]


# Hub


def part(labels: list[Any], names: list[str] | None = None, start: int = 0) -> datasets.Dataset:
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("string")
    rows = [{"bytes": png(start + i), "path": None} for i in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    return datasets.Dataset.from_dict({"image": rows, "label": labels}, features=features)


def serve(monkeypatch: pytest.MonkeyPatch, **parts: datasets.Dataset) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(parts))


def test_hub_sets_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["owl", "ant", "yak"]
    serve(monkeypatch, train=part([0, 1, 1, 0], names), validation=part([2, 1], names, start=4))
    assert classes("owner/name") == ("owl", "ant", "yak")
    assert shown("owner/name", "train") == {0: "owl", 1: "ant", 2: "ant", 3: "owl"}
    assert shown("owner/name", "test") == {4: "yak", 5: "ant"}
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    images = pickle.loads(pickle.dumps(open_set("owner/name", "test")))
    assert images.class_ids.tolist() == [2, 1]


def test_hub_sets_without_names_or_a_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [("owl", "ant")[seed % 2] for seed in range(20)]
    serve(monkeypatch, train=part(labels))
    assert classes("owner/name") == ("ant", "owl")
    assert shown("owner/name", "train") | shown("owner/name", "test") == dict(enumerate(labels))


def test_hub_sets_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=part(["a", "b"]).remove_columns("label"), test=part(["a", "b"], start=2))
    assert open_set("owner/name", "train").classes is None
    assert shown("owner/name", "test") == {2: "a", 3: "b"}
