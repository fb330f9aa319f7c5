"""Tables on disk, and what is left of a fit once it is integers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codec import small
from hybridvq.codec import load_tables
from hybridvq.codec.tables import FILE, vars_of
from hybridvq.errors import CodecError


@pytest.mark.parametrize("levels", [4, None])
def test_saved_and_loaded(tmp_path, levels):
    tables = small.tables(levels=levels, stages=2)
    tables.save(tmp_path)
    loaded = load_tables(tmp_path)
    assert (loaded.model, loaded.codebook_size, loaded.levels, loaded.stages) == (small.MODEL, 16, levels, 2)
    assert loaded.digest == tables.digest
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_no_float_is_stored(tmp_path):
    small.tables(stages=2).save(tmp_path)
    assert {array.dtype.name for array in load_file(tmp_path / FILE).values()} == {"int16", "uint32"}


def test_every_integer_counts_in_the_digest():
    tables = small.tables()
    (stage,) = tables.of_stages
    digests = {tables.digest, replace(tables, model="00" * 32).digest}
    for name, array in vars_of(stage).items():
        changed = array.copy()
        changed.flat[-1] += 1
        digests.add(replace(tables, of_stages=(replace(stage, **{name: changed}),)).digest)
    assert len(digests) == 2 + len(vars_of(stage))


def test_no_tables(tmp_path):
    with pytest.raises(CodecError, match=r"holds no codec.safetensors, .* run `hybridvq fit-codec`"):
        load_tables(tmp_path)


def damage(folder, content=None, metadata=None, described=None, **arrays):
    small.tables().save(folder)
    keys = {"format": 1, "model": small.MODEL, "codebook_size": 16, "levels": 4, "stages": 1} | (metadata or {})
    stored = load_file(folder / FILE) | {f"0.{name}": array for name, array in arrays.items()}
    save_file(stored, folder / FILE, {"codec": described or json.dumps(keys)})
    if content is not None:
        (folder / FILE).write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": b"junk"}, ""),
        ({"metadata": {"format": 3}}, "format 3; this version reads up to 2"),
        ({"metadata": {"stages": 2}}, "1.shares"),
        ({"metadata": {"codebook_size": 17}}, r"vectors is int16 \(16, 3\)|shares is uint32 \(4, 16\)"),
        ({"metadata": {"levels": "many"}}, "many"),
        ({"code_bias": np.zeros(16, np.float32)}, "code_bias is float32"),
        ({"near": np.zeros((3, 8), np.int16)}, r"near is int16 \(3, 8\)"),
        ({"near_bias": np.zeros((), np.int16)}, ""),
        ({"vectors": np.zeros((), np.int16)}, ""),
        ({"metadata": {"stages": 0}}, "0 stages"),
        ({"metadata": {"stages": 10**30}}, "too large"),
        ({"metadata": {"stages": float("inf")}}, "Infinity"),
        ({"described": "[" * 10**5}, "nested too deeply"),
        ({"described": "[1]"}, "list"),
        ({"metadata": {"model": "5e"}}, "the model 5e"),
        ({"metadata": {"model": "photo"}}, "hex"),
        ({"shares": np.zeros((4, 16), np.uint32)}, "shares"),
    ],
)
def test_tables_that_cannot_be(tmp_path, change, message):
    damage(tmp_path, **change)
    with pytest.raises(
        CodecError, match=f"codec.safetensors cannot be used.*{message}.*run `hybridvq fit-codec` again"
    ):
        load_tables(tmp_path)


def test_tables_of_other_weights(tmp_path):
    small.tables().save(tmp_path)
    assert load_tables(tmp_path, small.MODEL).digest == small.tables().digest
    with pytest.raises(CodecError, match="SHA-256 5e5e5e5e5e5e5e5e, and the model's have abababababababab; run"):
        load_tables(tmp_path, "ab" * 32)
