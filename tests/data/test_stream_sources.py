"""Streams from the hub, by a stand-in for its builder, and everything that can be wrong with a stream."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hybridvq.data import StreamLoader, open_stream
from hybridvq.errors import ConfigError, DataError

from .shards import SIDE, encoded, numbers, write_parquet, write_set, write_tar

# A machine may have fewer cores than a test has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

NAME = "owner/name"


def opened(data: Path | str, split: str = "train", **options) -> Any:
    return open_stream(str(data), split, size=SIDE, **({"shuffle_buffer": 5} | options))  # type: ignore[arg-type]


def order(stream: Any, steps: int) -> list[int]:
    return [number for x in StreamLoader(stream, 2, steps, 0) for number in numbers(x)]


def taken(stream: Any) -> list[int]:
    images = stream.take(1000)
    return [int(np.median(images.pixels(i))) for i in range(len(images))]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Make parts, each a list of (bytes, path), the hub set owner/name: parquet shards with an image feature."""
    real = datasets.load_dataset_builder
    # Its readers of parquet shards sleep so long at the end of each epoch.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)

    def make(column: str = "image", feature: Any = None, **parts: list[tuple[bytes | None, str | None]]) -> None:
        files = {}
        for part, rows in parts.items():
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            values = pa.array([{"bytes": content, "path": path} for content, path in rows], kind)
            features = datasets.Features({column: feature or datasets.Image(), "label": datasets.Value("int64")})
            table = datasets.table.table_cast(
                pa.table({column: values, "label": pa.array(range(len(rows)))}), features.arrow_schema
            )
            files[part] = str(tmp_path / f"{part}.parquet")
            pq.write_table(table, files[part], row_group_size=3)
        builder = real("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))

        def stream() -> dict[str, Any]:
            # As for sets that really are remote, whose images are decoded in threads unless that is turned off.
            return {name: part.decode(num_threads=2) for name, part in builder.as_streaming_dataset().items()}

        served = SimpleNamespace(as_streaming_dataset=stream, config=builder.config)
        monkeypatch.setattr(datasets, "load_dataset_builder", {NAME: served}.__getitem__)

    return make


def rows(images: range) -> list[tuple[bytes | None, str | None]]:
    return [(encoded(number), f"{number}.png") for number in images]


@pytest.mark.parametrize(("column", "test"), [("image", "test"), ("img", "validation"), ("png", "test")])
def test_hub_sets(serve: Callable[..., None], column: str, test: str) -> None:
    serve(column, **{"train": rows(range(20)), test: rows(range(30, 33))})
    stream = opened(NAME)
    assert stream.name == NAME
    assert sorted(order(stream, 10)) == list(range(20))
    assert order(stream, 10) != list(range(20))
    assert taken(opened(NAME, "test")) == [30, 31, 32]
    assert opened(NAME, "test").fingerprint != stream.fingerprint == opened(NAME).fingerprint


def test_a_hub_shard_is_shared_out_by_row_group(serve: Callable[..., None]) -> None:
    serve(train=rows(range(9)), test=rows(range(2)))
    stream = opened(NAME, workers=9)
    assert stream.workers_of(1) == 3
    assert sorted(order(pickle.loads(pickle.dumps(stream)), 9)) == sorted([*range(9)] * 2)


def test_hub_sets_without_a_test_part_hold_out_by_content(serve: Callable[..., None]) -> None:
    serve(train=rows(range(60)))
    train, test = (taken(opened(NAME, split)) for split in ("train", "test"))
    assert sorted(train + test) == list(range(60))
    assert 1 <= len(test) < 20
    assert not set(order(opened(NAME), 60)) & set(test)
    serve(train=rows(range(59, -1, -1)))
    assert sorted(taken(opened(NAME, "test"))) == test, "whatever the order"


def test_hub_images_may_be_files_of_their_own(serve: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "7.png").write_bytes(encoded(7))
    serve(train=[(None, str(tmp_path / "7.png"))], test=[(None, str(tmp_path / "gone.png"))])
    assert taken(opened(NAME)) == [7]
    with pytest.raises(DataError, match=r"owner/name cannot be read any further \(.*gone\.png.*\); check the network"):
        taken(opened(NAME, "test"))


def test_hub_images_that_are_damaged_are_named(serve: Callable[..., None]) -> None:
    serve(train=[(b"junk", "a/b.jpg")], test=[(None, None), (b"junk", None)])
    with pytest.raises(DataError, match=r"owner/name/a/b\.jpg cannot be read as an image \(not an image\)"):
        taken(opened(NAME))
    stream = opened(NAME, "test", skip_unreadable=True)
    with pytest.raises(DataError, match="owner/name has no readable image in its test split"):
        stream.take(1)
    assert [line.split(": ")[1] for line in stream.skipped] == ["no bytes", "not an image"]
    assert all(line.startswith("image with SHA-256 ") for line in stream.skipped)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_shards_here_need_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/dev/null/datasets")
    assert taken(opened(write_set(tmp_path, kind, [4]))) == [0, 1, 2, 3]


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> None:
        raise OSError(30, "Read-only file system", "/home/me/.cache/huggingface")

    monkeypatch.setattr(datasets, "load_dataset_builder", refused)
    with pytest.raises(
        DataError, match=r"^the cache of the hub at /home/me/\.cache/huggingface cannot be written \(Read"
    ):
        opened(NAME)


def test_hub_sets_that_cannot_be_streamed(serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    serve("picture", train=rows(range(2)))
    with pytest.raises(DataError, match=r"owner/name has the columns \['picture', 'label'\]"):
        opened(NAME)

    def offline(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset_builder", offline)
    with pytest.raises(DataError, match=r"^'owner/name' is no path here, .* \(Couldn't reach .*\); check"):
        opened(NAME)


def test_data_that_cannot_be_streamed(tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    for data in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(ConfigError, match=r"has no \.parquet or \.tar files to stream"):
            opened(data)
    for data in ("photos", "", "no/such/folder"):
        with pytest.raises(ConfigError, match="cannot be streamed: it is neither an existing path nor a hub id"):
            opened(data)


def damage_page(path: Path) -> None:
    column = pq.read_metadata(path).row_group(1).column(0)
    whole = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + 40] = b"\xff" * 40
    path.write_bytes(whole)


def without_images(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("0.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"0"))


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("parquet", lambda path: path.write_bytes(b"junk"), r"train-000\.parquet cannot be read as a parquet file"),
        ("parquet", lambda path: write_parquet(path, range(3), "picture"), r"has the columns \['picture'\]"),
        ("parquet", lambda path: write_parquet(path, []), r"train-000\.parquet has no rows"),
        ("parquet", damage_page, r"train-000\.parquet cannot be read after row 4 \(damaged parquet data: .*\); down"),
        ("tar", lambda path: path.write_bytes(b""), r"train-000\.tar cannot be read as a tar file \(not a tar file\)"),
        ("tar", lambda path: path.write_bytes(b"x" * 2000), r"train-000\.tar cannot be read as a tar file"),
        ("tar", lambda path: path.write_bytes(path.read_bytes()[:1800]), r"train-000\.tar .*unexpected end of data"),
        ("tar", without_images, r"train-000\.tar has no member that ends in \.jpg"),
    ],
)
def test_damaged_shards_are_named(tmp_path: Path, kind: str, damage: Callable[[Path], object], message: str) -> None:
    damage(write_set(tmp_path, kind, [8]) / f"train-000.{kind}")
    with pytest.raises(DataError, match=message) as caught:
        taken(opened(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_undecodable_images_are_named_or_left_out(tmp_path: Path, kind: str, workers: int) -> None:
    write = {"parquet": write_parquet, "tar": write_tar}[kind]
    write(tmp_path / f"test.{kind}", [0])
    write(tmp_path / f"train-0.{kind}", [1, b"junk", 2, 3])
    write(tmp_path / f"train-1.{kind}", [4, 5, 6])
    name = {"parquet": r"train-0\.parquet row 1", "tar": r"train-0\.tar/000001\.png"}[kind]
    with pytest.raises(DataError, match=rf"/{name} cannot be read as an image \(not an image\); remove it") as caught:
        order(opened(tmp_path, workers=workers), 20)
    assert "\n" not in str(caught.value)
    stream = opened(tmp_path, workers=workers, skip_unreadable=True)
    assert set(order(stream, 30)) == {1, 2, 3, 4, 5, 6}
    assert stream.skipped == [name.replace("\\", "") + ": not an image"]


def test_a_missing_image_is_left_out(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [1, None])
    write_parquet(tmp_path / "test.parquet", [1])
    (tmp_path / "x.parquet").rename(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet row 1 cannot be read as an image \(no bytes\)"):
        taken(opened(tmp_path))


@pytest.mark.parametrize(("images", "workers"), [([b"junk", b"junk"], 0), ([1], 0)])
def test_a_reader_without_an_image_stops(tmp_path: Path, images: list[int | bytes], workers: int) -> None:
    write_tar(tmp_path / "train.tar", images)
    write_tar(tmp_path / "test.tar", [0])
    stream = opened(tmp_path, skip_unreadable=True)
    with pytest.raises(DataError, match=r"has no readable image in its train split for each of 2 readers; give more"):
        list(StreamLoader(stream, 2, 5, 0, rank=1, world_size=2))
