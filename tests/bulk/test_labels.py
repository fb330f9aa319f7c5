"""Labels go with the tokens: whoever makes the shards, and whenever."""

import json
import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from bulk.test_resume import contents
from data.conftest import noise
from hybridvq import ConfigError, DataError, load_tokens, open_images, tokenize
from hybridvq.bulk import cluster
from hybridvq.bulk.schema import read_manifest
from hybridvq.bulk.shards import Job, without_memory

KINDS = [("owl", "ant", "yak")[seed % 3] for seed in range(23)]
BAD = (4, 11)  # in the first shard and in the third
EXPECTED = [kind for kind, seed in sorted(zip(KINDS, range(23), strict=True)) if seed not in BAD]
SHARD = {"shard_images": 5, "batch_size": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed, kind in enumerate(KINDS):
        path = folder / "train" / kind / f"{seed:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed, 16, 16).save(path)
        if seed in BAD:
            path.write_bytes(b"junk")
    (folder / "test" / "bee").mkdir(parents=True)
    noise(30, 16, 16).save(folder / "test" / "bee" / "30.png")
    return folder


@pytest.fixture
def labelled(data):
    return open_images(str(data), "train", size=16, skip_unreadable=True)


@pytest.fixture(scope="module")
def folder(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokens")
    images = open_images(str(data), "train", size=16, skip_unreadable=True)
    assert tokenize(model, images, out, workers=1, **SHARD).shards == 5
    return out


def test_labels_come_back(folder):
    tokens = load_tokens(folder)
    assert tokens.classes == ("ant", "bee", "owl", "yak")
    assert tokens.labels.dtype == np.int64
    assert [tokens.classes[label] for label in tokens.labels] == EXPECTED
    assert len(tokens[[5, 0, 12]].codes) == len(tokens.labels[[5, 0, 12]]) == 3
    assert np.array_equal(pickle.loads(pickle.dumps(tokens)).labels, tokens.labels)


def test_they_are_a_plain_column(folder):
    manifest = json.loads((folder / "tokens.json").read_text())
    assert manifest["data"]["classes"] == ["ant", "bee", "owl", "yak"]
    assert list(manifest["columns"]) == ["codes", "gains"]
    table = pq.read_table(folder / "train-00001-of-00005.parquet")
    assert table.column_names == ["index", "label", "codes", "gains"]
    assert [manifest["data"]["classes"][label] for label in table["label"].to_pylist()] == EXPECTED[5:10]


def test_reading_them_reads_no_tokens(folder, monkeypatch):
    tokens = load_tokens(folder)
    read = []
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spied(pq.ParquetFile.read_row_groups, read))
    assert len(tokens.labels) == len(tokens.labels) == 21
    assert read == [["label"]] * 5, "each shard once"


def spied(method, read):
    def spy(self, groups, columns, **options):
        read.append(columns)
        return method(self, groups, columns, **options)

    return spy


def test_several_workers_and_a_second_call_make_the_same(model, labelled, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for shard in (0, 2, 4):
        (tmp_path / f"train-0000{shard}-of-00005.parquet").unlink()
    assert tokenize(model, labelled, tmp_path, workers=2, **SHARD).made == 3
    assert contents(tmp_path) == contents(folder)


def test_an_actor_of_a_cluster_makes_the_same(model, labelled, folder, tmp_path):
    """Which has nothing but what was sent to it."""
    assert labelled.classes
    job = Job(model, without_memory(labelled), tmp_path, read_manifest(folder), 4)
    actor = cluster.Actor(pickle.loads(pickle.dumps(job)), "cpu")
    assert list(cluster.outcome(actor({"shard": [1, 3]}))) == [10]
    made = contents(tmp_path)
    assert len(made) == 2
    assert made.items() <= contents(folder).items()


def test_images_without_classes_have_no_column(model, tmp_path):
    tokenize(model, open_images("photos", "test", size=16, limit=7), tmp_path, workers=1, **SHARD)
    tokens = load_tokens(tmp_path)
    assert tokens.classes is tokens.labels is None
    assert "classes" not in tokens.manifest.data
    assert pq.read_schema(tmp_path / "test-00000-of-00002.parquet").names == ["index", "codes", "gains"]


def test_a_damaged_label_is_noticed(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "train-00002-of-00005.parquet"
    column = pq.read_metadata(path).row_group(0).column(1)
    assert column.path_in_schema == "label"
    whole, good, noticed = path.read_bytes(), load_tokens(tmp_path).labels, []
    start = column.dictionary_page_offset
    for place in range(start, start + column.total_compressed_size):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert np.array_equal(load_tokens(tmp_path).labels, good)
        except DataError as error:
            noticed.append(str(error))
    assert len(noticed) > 10
    assert all("train-00002-of-00005.parquet is damaged" in text for text in noticed)


@pytest.mark.parametrize(
    ("added", "message"),
    [("test/cow/40.png", "4 of them and not 5 of them"), ("test/41.png", "4 of them and not None")],
)
def test_other_classes_are_other_tokens(model, data, folder, tmp_path, added, message):
    """A class of the other split moves the numbers, though the images are the same."""
    moved = shutil.copytree(data, tmp_path / data.name)
    (moved / added).parent.mkdir(exist_ok=True)
    noise(40).save(moved / added)
    images = open_images(str(moved), "train", size=16, skip_unreadable=True)
    with pytest.raises(ConfigError, match=rf"made with another data\.classes, {message}; choose another --out"):
        tokenize(model, images, folder, workers=1, **SHARD)
