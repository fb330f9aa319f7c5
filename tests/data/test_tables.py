import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridvq.data import Images, open_images, open_stream
from hybridvq.data import images as images_module
from hybridvq.errors import DataError

from .conftest import noise, png, structs


def write(path: Path, seeds: range, column: str = "image", group: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[bytes | None] = [png(seed) for seed in seeds]
    pq.write_table(pa.table({"label": list(seeds), column: structs(rows)}), path, row_group_size=group)
    return path


def seeds_shown(data: Path, split: str) -> list[int]:
    """Which of the noise images a split shows, in order."""
    images = open_images(str(data), split, size=8)  # type: ignore[arg-type]
    known = {np.asarray(noise(seed, 8, 8)).tobytes(): seed for seed in range(40)}
    return [known[images.crop(i, None).tobytes()] for i in range(len(images))]


def test_a_single_file_is_split_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "faces.parquet", range(40))
    train, test = seeds_shown(path, "train"), seeds_shown(path, "test")
    assert sorted(train + test) == list(range(40))
    assert 1 <= len(test) <= 10
    assert open_images(str(path), "train", size=8).name == "faces (parquet)"


@pytest.mark.parametrize("test", ["test-00000-of-00001", "val", "valid", "validation-0"])
def test_files_are_split_by_name(tmp_path: Path, test: str) -> None:
    write(tmp_path / "set" / "train-00000-of-00002.parquet", range(6))
    write(tmp_path / "set" / "train-00001-of-00002.parquet", range(6, 11))
    write(tmp_path / "set" / f"{test}.parquet", range(20, 23))
    assert seeds_shown(tmp_path / "set", "train") == list(range(11))
    assert seeds_shown(tmp_path / "set", "test") == [20, 21, 22]
    assert open_images(str(tmp_path / "set"), "test", size=8).name == "set (parquet)"


@pytest.mark.parametrize("names", [("one", "two"), ("train-0", "train-1")])
def test_files_whose_names_say_nothing_are_split_by_row(tmp_path: Path, names: tuple[str, str]) -> None:
    write(tmp_path / "data" / f"{names[0]}.parquet", range(15))
    write(tmp_path / "data" / f"{names[1]}.parquet", range(15, 40))
    train, test = seeds_shown(tmp_path, "train"), seeds_shown(tmp_path, "test")
    assert sorted(train + test) == list(range(40))
    assert test


def test_img_and_binary_columns(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", range(3), column="img")
    for kind in (pa.binary(), pa.large_binary()):
        pq.write_table(pa.table({"image": pa.array([png(5), png(6)], kind)}), tmp_path / "test.parquet")
        assert seeds_shown(tmp_path, "test") == [5, 6]
    assert seeds_shown(tmp_path, "train") == [0, 1, 2]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"picture": [1], "label": [2]},
            r"x\.parquet has the columns \['picture', 'label'\]; .* 'image' or 'img'",
        ),
        ({"image": ["a.png"]}, r"x\.parquet has a column 'image' of type string"),
        ({"image": [[1, 2]]}, r"x\.parquet has a column 'image' of type list"),
    ],
)
def test_columns_that_hold_no_images(tmp_path: Path, table: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        open_images(str(tmp_path / "x.parquet"), "train", size=8)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", range(8))
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[: len(whole) // 2], b"x" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.parquet cannot be read as a parquet file \(.*\); download") as caught:
            open_images(str(path), "train", size=8)
        assert "\n" not in str(caught.value)


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", range(8), group=8)
    column = pq.read_metadata(path).row_group(0).column(1)
    whole = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + 60] = b"\xff" * 60
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"x\.parquet row \d cannot be read as an image \(damaged parquet data"):
        open_images(str(path), "train", size=8)


def test_damaged_rows_are_named_or_skipped(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", range(2))
    rows = structs([png(0), b"junk", None, b"", png(4)])
    pq.write_table(pa.table({"image": rows}), tmp_path / "train.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"train\.parquet row 1 cannot be read as an image \(not an image\)"):
        open_images(str(tmp_path), "train", size=8)
    images = open_images(str(tmp_path), "train", size=8, skip_unreadable=True)
    assert len(images) == 2
    assert images.skipped == [
        "train.parquet row 1: not an image",
        "train.parquet row 2: no bytes",
        "train.parquet row 3: empty",
    ]


def test_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", range(2))
    pq.write_table(pa.table({"image": structs([])}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet has no rows"):
        open_images(str(tmp_path), "train", size=8)


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "x.parquet", range(20))
    (tmp_path / "b").mkdir()
    copied = Path(shutil.copy(path, tmp_path / "b" / "x.parquet"))
    first = open_images(str(path), "train", size=8).fingerprint
    assert open_images(str(copied), "train", size=8).fingerprint == first
    assert open_images(str(path), "test", size=8).fingerprint != first
    assert open_images(str(path), "train", size=8, limit=3).fingerprint != first
    write(copied, range(21))
    assert open_images(str(copied), "train", size=8).fingerprint != first


def test_large_files_are_read_by_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", range(20))
    kept = open_images(str(path), "train", size=8)
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    lazy = open_images(str(path), "train", size=8)
    lazy.crop(0, None)
    copied = pickle.loads(pickle.dumps(lazy))
    for i in reversed(range(len(kept))):
        np.testing.assert_array_equal(copied.crop(i, None), kept.crop(i, None))


def hub_part(seeds: range, column: str = "image") -> datasets.Dataset:
    features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
    rows = [{"bytes": png(seed), "path": None} for seed in seeds]
    return datasets.Dataset.from_dict({column: rows, "label": list(seeds)}, features=features)


def serve(monkeypatch: pytest.MonkeyPatch, **parts: datasets.Dataset) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(parts))


@pytest.mark.parametrize(("column", "test"), [("img", "test"), ("image", "validation")])
def test_hub_sets(monkeypatch: pytest.MonkeyPatch, column: str, test: str) -> None:
    serve(monkeypatch, **{"train": hub_part(range(5), column), test: hub_part(range(7, 9), column)})
    assert seeds_shown(Path("owner/name"), "train") == [0, 1, 2, 3, 4]
    assert seeds_shown(Path("owner/name"), "test") == [7, 8]
    images = open_images("owner/name", "train", size=8)
    assert images.name == "owner/name"
    assert images.fingerprint == open_images("owner/name", "train", size=8).fingerprint
    assert images.fingerprint != open_images("owner/name", "test", size=8).fingerprint


def test_hub_sets_are_read_on_access_and_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=hub_part(range(5)), test=hub_part(range(2)))
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 0)
    images = open_images("owner/name", "train", size=8)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images)).crop(3, None), np.asarray(noise(3, 8, 8)))


def test_hub_sets_without_a_test_part_hold_out(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=hub_part(range(20)))
    train, test = (seeds_shown(Path("owner/name"), split) for split in ("train", "test"))
    assert sorted(train + test) == list(range(20))


def test_hub_rows_that_are_damaged_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_dict({"image": [png(0), b"junk"]}, split="train")
    rows = rows.cast_column("image", datasets.Value("binary"))
    serve(monkeypatch, train=rows, test=hub_part(range(2)))
    with pytest.raises(DataError, match=r"owner/name/train row 1 cannot be read as an image \(not an image\)"):
        open_images("owner/name", "train", size=8)


def test_hub_sets_without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=datasets.Dataset.from_dict({"text": ["a", "b"]}))
    with pytest.raises(DataError, match=r"owner/name has the columns \['text'\]"):
        open_images("owner/name", "train", size=8)
    serve(monkeypatch, train=datasets.Dataset.from_dict({"image": ["a", "b"]}))
    with pytest.raises(DataError, match="column 'image' of type"):
        open_images("owner/name", "train", size=8)


def test_hub_sets_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (LocalEntryNotFoundError)\nand more")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"^'owner/name' is no path here, .* \(Couldn't reach .*\); check") as caught:
        open_images("owner/name", "train", size=8)
    assert "\n" not in str(caught.value)


def path_rows(*rows: tuple[bytes | None, str | None]) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": content, "path": path} for content, path in rows], kind)


def both_readers(folder: Path, split: str = "train", **options: bool) -> list[Images]:
    return [
        open_images(str(folder), split, size=8, **options),  # type: ignore[arg-type]
        open_stream(str(folder), split, size=8, **options).take(99),  # type: ignore[arg-type]
    ]


def test_rows_may_name_a_file(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", range(2))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.png").write_bytes(png(7))
    rows = path_rows((png(3), "elsewhere/3.png"), (None, "images/7.png"), (None, str(tmp_path / "images" / "7.png")))
    pq.write_table(pa.table({"image": rows}), tmp_path / "train.parquet")
    for images in both_readers(tmp_path):
        assert [images.crop(i, None).tobytes() for i in range(3)] == [
            np.asarray(noise(seed, 8, 8)).tobytes() for seed in (3, 7, 7)
        ]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.png", r"no bytes, and its path \.\./secret\.png leads out of the folder"),
        ("/etc/secret.png", r"no bytes, and its path /etc/secret\.png leads out of the folder"),
        ("gone.png", "no such file"),
        ("", "no bytes"),
        (None, "no bytes"),
    ],
)
def test_rows_that_name_no_file_of_the_folder(tmp_path: Path, path: str | None, reason: str) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    write(tmp_path / "set" / "test.parquet", range(2))
    pq.write_table(pa.table({"image": path_rows((png(1), None), (None, path))}), tmp_path / "set" / "train.parquet")
    with pytest.raises(DataError, match=rf"train\.parquet row 1 cannot be read as an image \({reason}\)"):
        open_images(str(tmp_path / "set"), "train", size=8)
    with pytest.raises(DataError, match=rf"train\.parquet row 1 cannot be read as an image \({reason}\)"):
        open_stream(str(tmp_path / "set"), "train", size=8).take(9)
    assert [len(images) for images in both_readers(tmp_path / "set", skip_unreadable=True)] == [1, 1]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([png(4), png(5)]).dictionary_encode(),
        pa.array([png(4), png(5)], pa.binary_view()),
        pa.StructArray.from_arrays([pa.array([png(4), png(5)]).dictionary_encode()], ["bytes"]),
    ],
    ids=["dictionary", "view", "struct of a dictionary"],
)
def test_columns_of_other_encodings(tmp_path: Path, column: pa.Array) -> None:
    for name in ("train", "test"):
        pq.write_table(pa.table({"image.more": ["a", "b"], "image": column}), tmp_path / f"{name}.parquet")
    for images in both_readers(tmp_path):
        assert [images.crop(i, None).tobytes() for i in range(2)] == [
            np.asarray(noise(seed, 8, 8)).tobytes() for seed in (4, 5)
        ]


@pytest.mark.parametrize("name", ["Image", "IMG", "jpg", "PNG", "webp"])
def test_names_of_the_column(tmp_path: Path, name: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", range(2), column=name)
    assert [len(images) for images in both_readers(tmp_path)] == [2, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("image", pa.array([png(1)])), ("image", pa.array([png(1)]))], r"x\.parquet has 2 columns 'image'; name its"),
        ([("image", pa.array([png(1)])), ("IMAGE", pa.array([png(1)]))], r"x\.parquet has 2 columns 'image'; name its"),
        ([("image", pa.array([[png(1)]]))], r"x\.parquet has a column 'image' of type list"),
        ([("image", pa.array([{"bytes": [png(1)]}]))], r"x\.parquet has a column 'image' of type struct<bytes: list"),
        (
            [("image", pa.array([{"a": {"bytes": png(1)}}]))],
            r"x\.parquet has a column 'image' of type struct<a: struct",
        ),
        (
            [("image", pa.StructArray.from_arrays([pa.array([png(1)])] * 2, ["bytes", "bytes"]))],
            r"x\.parquet has a column 'image' of type struct<bytes: binary, bytes: binary>",
        ),
    ],
    ids=["twice", "twice in another case", "list", "list of bytes", "nested", "bytes twice"],
)
def test_columns_that_are_refused(tmp_path: Path, columns: list[tuple[str, pa.Array]], message: str) -> None:
    table = pa.Table.from_arrays([column for _, column in columns], [name for name, _ in columns])
    pq.write_table(table, tmp_path / "x.parquet")
    for read in (open_images, open_stream):
        with pytest.raises(DataError, match=message):
            read(str(tmp_path / "x.parquet"), "train", size=8)


def test_two_columns_of_labels(tmp_path: Path) -> None:
    columns = [structs([png(0), png(1)]), pa.array([0, 1]), pa.array([1, 0])]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_arrays(columns, ["image", "label", "label"]), tmp_path / f"{split}.parquet")
    images = open_images(str(tmp_path), "train", size=8)
    assert len(images) == 2
    with pytest.raises(DataError, match=r"train\.parquet has 2 columns 'label'; keep one of them"):
        _ = images.classes


def test_hub_sets_of_tar_files_are_read_as_when_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=hub_part(range(5), "jpg"), test=hub_part(range(7, 9), "jpg"))
    assert seeds_shown(Path("owner/name"), "test") == [7, 8]


def test_what_is_read_of_a_hub_set_without_a_test_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, train=hub_part(range(20)), extra=hub_part(range(9)))
    assert len(seeds_shown(Path("one/name"), "train")) + len(seeds_shown(Path("one/name"), "test")) == 20
    told = "one/name does not name both a train and a test split; of train, extra only train is read"
    assert capsys.readouterr().err.count(told) == 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    def refused(name: str) -> None:
        error = OSError(30, "Read-only file system", "/home/me/.cache/huggingface")
        if not wrapped:
            raise error
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    monkeypatch.setattr(datasets, "load_dataset", refused)
    message = r"^the cache of the hub at /home/me/\.cache/huggingface cannot be written \(Read-only .*\); set HF_HOME"
    with pytest.raises(DataError, match=message):
        open_images("owner/name", "train", size=8)
