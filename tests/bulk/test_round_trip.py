"""What comes out of the shards is what the tokenizer gives."""

import json
import pickle

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import tiny
from bulk.conftest import save_model
from hybridvq import DataError, ModelError, __version__, load_tokenizer, load_tokens, open_images, tokenize
from hybridvq.bulk.schema import TokenColumn, make_columns
from hybridvq.data import EvalBatches
from hybridvq.quantizers import Tokens, TokenSpace


@pytest.fixture(scope="module")
def few():
    return open_images("photos", "test", size=tiny.SIZE, limit=50)


@pytest.fixture(scope="module")
def folder(model, few, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokens")
    summary = tokenize(model, few, out, workers=1, shard_images=20, batch_size=8)
    assert (summary.shards, summary.made, summary.images) == (3, 3, 50)
    assert summary.bytes == sum(path.stat().st_size for path in out.glob("*.parquet"))
    return out


def same(a, b, exact=True):
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert (value is None) == (other is None), name
        if value is not None:
            assert value.dtype == other.dtype
            torch.testing.assert_close(value, other, **({"rtol": 0, "atol": 0} if exact else {}))


@pytest.mark.parametrize("name", tiny.MODELS)
@torch.inference_mode()
def test_every_quantizer_comes_back_image_by_image(name, few, tmp_path):
    tokenizer = load_tokenizer(save_model(tmp_path / "model", name))
    tokenize(tmp_path / "model", few, tmp_path / "out", workers=1, shard_images=20, batch_size=8)
    tokens = load_tokens(tmp_path / "out")
    assert len(tokens) == len(few) == 50
    batches = EvalBatches(few, 1)
    for i in range(len(few)):
        same(tokens[i], tokenizer.encode(batches[i]), exact=False)
    together = tokens[:]
    torch.testing.assert_close(tokenizer.decode(together)[7:8], tokenizer.decode(tokens[7]))
    if name.startswith("frequency"):
        assert together.passed.dtype == torch.bool
        assert 0 < together.passed.float().mean() < 1, "some positions pass and some do not"


def test_batches_are_in_the_order_asked_for(folder):
    tokens = load_tokens(folder)
    whole = tokens[:]
    assert whole.codes.shape == whole.gains.shape == (50, 1, 4, 4)
    assert whole.codes.dtype == whole.gains.dtype == torch.int64
    assert len(whole.codes.unique()) > 20
    order = [49, 3, 20, 19, 3]
    for which in (order, np.array(order), torch.tensor(order), tuple(order)):
        assert torch.equal(tokens[which].codes, whole.codes[order])
    assert torch.equal(tokens[-1].codes, whole.codes[-1:])
    assert torch.equal(tokens[18:22].gains, whole.gains[18:22])
    assert tokens[[]].codes.shape == (0, 1, 4, 4)
    for outside in (50, -51, [3, 50]):
        with pytest.raises(IndexError, match="of 50"):
            tokens[outside]


def test_a_data_loader_shuffles_them(folder):
    tokens = load_tokens(folder)
    tokens[0]
    assert pickle.loads(pickle.dumps(tokens))._loaded is None
    sampler = BatchSampler(RandomSampler(tokens), 16, drop_last=False)
    batches = list(DataLoader(tokens, sampler=sampler, batch_size=None))
    assert [len(batch.codes) for batch in batches] == [16, 16, 16, 2]
    seen = torch.cat([batch.codes for batch in batches]).sum()
    assert seen == tokens[:].codes.sum()


def test_datasets_reads_the_shards(folder, tmp_path):
    files = str(folder / "*.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert rows["index"] == list(range(50))
    whole = load_tokens(folder)[:]
    assert np.array_equal(np.array(rows["codes"]).reshape(50, 1, 4, 4), whole.codes)
    assert np.array_equal(np.array(rows["gains"]).reshape(50, 1, 4, 4), whole.gains)


def test_the_manifest_says_what_they_are(folder, model, few):
    written = json.loads((folder / "tokens.json").read_text())
    assert len(written["model"].pop("sha256")) == 64
    assert written == {
        "model": {"config": json.loads((model / "config.json").read_text())},
        "data": {"name": "photos", "fingerprint": few.fingerprint, "split": "test", "size": 16, "images": 50},
        "quantizer": {"codebook_size": 120, "levels": 4, "stages": 1},
        "grid": [4, 4],
        "columns": {
            "codes": {"dtype": "uint8", "shape": [1, 4, 4]},
            "gains": {"dtype": "uint8", "shape": [1, 4, 4]},
        },
        "shard_images": 20,
        "format": 1,
        "hybridvq": __version__,
    }
    files = sorted(path.name for path in folder.iterdir())
    assert files == [*(f"test-0000{i}-of-00003.parquet" for i in range(3)), "tokens.json"]
    assert [pq.read_metadata(folder / name).num_rows for name in files[:3]] == [20, 20, 10]


@pytest.mark.parametrize(("k", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65537, "uint32")])
def test_codes_take_the_smallest_type_that_holds_them(k, dtype):
    tokens = Tokens(codes=torch.zeros(1, 2, 3, 4, dtype=torch.int64), gains=torch.zeros(1, 2, 3, 4))
    assert make_columns(tokens, TokenSpace(k, 2, "float")) == {
        "codes": TokenColumn(dtype, (2, 3, 4)),
        "gains": TokenColumn("float32", (2, 3, 4)),
    }


def test_tokens_know_their_model(folder, model, tmp_path):
    tokens = load_tokens(folder)
    tokens.check(model)
    tokens.check(tokens.manifest.model["sha256"])
    other = save_model(tmp_path / "other", "gain-shape", seed=1)
    for wrong in (other, "0" * 64):
        with pytest.raises(ModelError, match=rf"holds the tokens of a model .* not of {wrong}; give that model"):
            tokens.check(wrong)


# What goes wrong


@pytest.fixture
def damaged(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path, tmp_path / "test-00001-of-00003.parquet"


def test_missing_and_foreign_shards_are_named(damaged, folder):
    out, shard = damaged
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(DataError, match=r"test-00001-of-00003\.parquet is missing; run `hybridvq tokenize` again"):
        load_tokens(out)
    for content in (whole[: len(whole) // 2], b"", b"PAR1" * 100):
        shard.write_bytes(content)
        with pytest.raises(DataError, match=r"test-00001-of-00003\.parquet is damaged .*; delete it"):
            load_tokens(out)
    shard.write_bytes((folder / "test-00002-of-00003.parquet").read_bytes())
    with pytest.raises(DataError, match=r"test-00001-of-00003\.parquet was made with other settings"):
        load_tokens(out)


def test_a_changed_byte_is_noticed(damaged):
    """Pages carry checksums, so that no damaged code is handed on as a good one."""
    out, shard = damaged
    whole, good = shard.read_bytes(), load_tokens(out)[20:40]
    footer = int.from_bytes(whole[-8:-4], "little")
    noticed = []
    for place in range(4, len(whole) - 8 - footer, 7):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            same(load_tokens(out)[20:40], good)
        except DataError as error:
            noticed.append(str(error))
    assert len(noticed) > 10
    assert all("test-00001-of-00003.parquet is damaged" in text and "\n" not in text for text in noticed)


def test_folders_that_hold_no_tokens(tmp_path):
    with pytest.raises(DataError, match=r"holds no tokens\.json; give a folder that `hybridvq tokenize` wrote"):
        load_tokens(tmp_path)
    for content in ("", "[]", "{}", '{"format": 2}', '{"format": 1}'):
        (tmp_path / "tokens.json").write_text(content)
        with pytest.raises(DataError, match=r"tokens\.json cannot be read \("):
            load_tokens(tmp_path)
