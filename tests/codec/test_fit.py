"""Fitted tables spend fewer bits where neighbours tell something, and are made for one model."""

import re

import numpy as np
import pytest
import torch

import tiny
from bulk.conftest import save_model
from hybridvq import Tokenizer
from hybridvq.cli import main
from hybridvq.codec import CONTEXTUAL, STATIC, TokenCoder, fit_tables, load_tables
from hybridvq.errors import CodecError
from hybridvq.tokenizer import weight_hash


def tokenizer(stages: int = 1, name: str = "gain-shape") -> Tokenizer:
    torch.manual_seed(0)
    options = {"codebook_size": 12} | ({"levels": 3, "stages": stages} if name == "gain-shape" else {})
    return Tokenizer(8, 4, name, options)


def copied(seed: int, images: int, stages: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of which each is, three times in four, that of its left neighbour."""
    draw = np.random.default_rng(seed)
    codes, levels = (
        draw.integers(0, 12, (images, stages, side, side)),
        draw.integers(0, 3, (images, stages, side, side)),
    )
    keep = draw.random((2, *codes.shape)) < 0.75
    for x in range(1, side):
        codes[..., x] = np.where(keep[0, ..., x], codes[..., x - 1], codes[..., x])
        levels[..., x] = np.where(keep[1, ..., x], levels[..., x - 1], levels[..., x])
    return codes, levels


@pytest.mark.parametrize("name", ["gain-shape", "vector"])
def test_context_pays(name):
    codes, levels = copied(1, 40, 1)
    levels = levels if name == "gain-shape" else None
    tables = fit_tables([(codes, levels)], tokenizer(name=name), "ab" * 32, width=32, steps=300)
    assert (tables.model, tables.codebook_size, tables.stages) == ("ab" * 32, 12, 1)
    test, test_levels = copied(2, 1, 1)
    test_levels = test_levels[0] if name == "gain-shape" else None
    static, contextual = (TokenCoder(tables, mode).cost_bits(test[0], test_levels)[0] for mode in (STATIC, CONTEXTUAL))
    positions = 12 * 12
    assert static / positions == pytest.approx(np.log2(12) + (np.log2(3) if name == "gain-shape" else 0), rel=0.03)
    assert contextual < 0.75 * static


def test_later_stages_read_earlier_ones():
    """A second stage that repeats the first costs less than half."""
    codes, levels = copied(3, 40, 1)
    twice = np.concatenate([codes, codes], 1), np.concatenate([levels, levels], 1)
    tables = fit_tables([twice], tokenizer(stages=2), "ab" * 32, width=32, steps=400)
    first, second = TokenCoder(tables).cost_bits(twice[0][0], twice[1][0])
    assert second < 0.5 * first


def test_the_same_tokens_make_the_same_tables():
    batches = [copied(1, 3, 1), copied(2, 2, 1, side=7)]
    made = [fit_tables(iter(batches), tokenizer(), "ab" * 32, width=8, steps=5, seed=seed) for seed in (0, 0, 1)]
    assert made[0].digest == made[1].digest != made[2].digest


@pytest.mark.parametrize("name", ["projected", "frequency", "identity", "gaussian"])
def test_floats_cannot_be_compressed(name):
    settings = tiny.model(name)
    model = Tokenizer(8, 4, settings.quantizer, settings.options)
    with pytest.raises(CodecError, match=r"hold floats, .*; train with --recipe gain-shape"):
        fit_tables([], model, "ab" * 32)


def test_float_gains_cannot_be_compressed():
    with pytest.raises(CodecError, match="hold floats"):
        fit_tables([], Tokenizer(8, 4, "gain-shape", {"codebook_size": 12, "levels": None}), "ab" * 32)


def test_no_tokens():
    with pytest.raises(CodecError, match="no tokens"):
        fit_tables([], tokenizer(), "ab" * 32)


def test_the_command(tmp_path, capsys):
    folder = save_model(tmp_path / "model", "gain-shape")
    words = [str(folder), "--data", "photos", "--size", "64", "--images", "6", "--steps", "20"]
    assert main(["fit-codec", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    bits = re.fullmatch(
        rf"static tables: (\d+\.\d\d) bits a position\ncontextual tables: (\d+\.\d\d) bits a position\n"
        rf"measured on \d+ held-out images; tables: {folder}/codec.safetensors\n",
        out,
    )
    assert 0 < float(bits[1]) < 9
    assert load_tables(folder).model == weight_hash(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("/no/where", "there is no model folder /no/where"),
        ("MODEL --images 0", "images is 0; it must be at least 1"),
        ("MODEL --steps 0", "steps is 0; it must be at least 1"),
        ("MODEL --size 18", "images of 18 pixels a side do not divide into positions of 4x4"),
        ("FLOATS", "hold floats"),
    ],
)
def test_wrong_words(tmp_path, capsys, words, message):
    save_model(tmp_path / "model", "gain-shape")
    save_model(tmp_path / "floats", "projected")
    words = words.replace("MODEL", str(tmp_path / "model")).replace("FLOATS", str(tmp_path / "floats"))
    assert main(["fit-codec", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("codec.safetensors"))
