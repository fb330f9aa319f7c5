"""Fitted tables spend fewer bits where neighbors tell something, and are made for one model."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import hybridvq
import tiny
from bulk.conftest import save_model
from codec import small
from hybridvq import Codec, Tokenizer
from hybridvq.cli import main
from hybridvq.codec import CONTEXTUAL, STATIC, Tables, TokenCoder, fit_tables, load_tables
from hybridvq.codec.tables import FILE
from hybridvq.errors import CodecError
from hybridvq.tokenizer import weight_hash


def tokenizer(stages: int = 1, name: str = "gain-shape") -> Tokenizer:
    torch.manual_seed(0)
    options = {"codebook_size": 12} | ({"levels": 3, "stages": stages} if name == "gain-shape" else {})
    return Tokenizer(8, 4, name, options)


def copied(seed: int, images: int, stages: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of which each is, three times in four, that of its left neighbor."""
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


@pytest.mark.parametrize("batches", [[], [(np.zeros((1, 1, 0, 3), int), np.zeros((1, 1, 0, 3), int))]])
def test_no_tokens(batches):
    with pytest.raises(CodecError, match="no tokens"):
        fit_tables(batches, tokenizer(), "ab" * 32)


@pytest.mark.parametrize(
    ("code", "level", "message"),
    [
        (0, -1, "levels lie outside 0 to 2"),
        (0, 3, "levels lie outside 0 to 2"),
        (-1, 1, "codes lie outside 0 to 11"),
        (12, 1, "codes lie outside 0 to 11"),
        (1.5, 1, "codes are float64 numbers"),
    ],
)
def test_tokens_of_another_model(code, level, message):
    """A level of -1 is not the last, and a code of 12 not the first of the next level."""
    with pytest.raises(CodecError, match=message):
        fit_tables([(np.full((1, 1, 4, 4), code), np.full((1, 1, 4, 4), level))], tokenizer(), "ab" * 32, steps=1)


def test_models_that_no_file_can_name():
    for options, key in (
        ({"codebook_size": 2**16 + 1}, "codebook_size"),
        ({"codebook_size": 2, "levels": 257}, "levels"),
    ):
        with pytest.raises(CodecError, match=rf"{key} of the model is \d+, and a file holds up to \d+"):
            fit_tables([], Tokenizer(4, 4, "gain-shape", options), "ab" * 32)


WORDS = ["--data", "photos", "--size", "16", "--images", "6", "--steps", "2"]


def test_the_command(tmp_path, capsys):
    folder = save_model(tmp_path / "model", "gain-shape")
    assert main(["fit-codec", str(folder), *WORDS]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    bits = re.fullmatch(
        rf"static tables: (\d+\.\d\d) bits per position\ncontextual tables: (\d+\.\d\d) bits per position\n"
        rf"measured on \d+ held-out images; tables: {folder}/codec.safetensors\n",
        out,
    )
    assert float(bits[1]) > 0
    assert load_tables(folder).model == weight_hash(folder)


@pytest.fixture
def fitted(tmp_path):
    """A model folder with tables."""
    folder = save_model(tmp_path / "model", "gain-shape")
    small.tables().save(folder)
    return folder


def test_tables_go_with_a_copy_of_the_model(fitted, tmp_path, capsys):
    before = (fitted / FILE).read_bytes()
    assert main(["fit-codec", str(fitted), *WORDS, "--out", str(tmp_path / "deep" / "copy")]) == 0
    assert f"tables: {tmp_path}/deep/copy/codec.safetensors\n" in capsys.readouterr().out
    assert (fitted / FILE).read_bytes() == before
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"]
    assert Codec.load(tmp_path / "deep" / "copy", "cpu").tables.model == weight_hash(fitted)


def test_tables_that_are_there(fitted, capsys):
    """Nothing is fitted before that is settled."""
    before = (fitted / FILE).read_bytes()
    assert main(["fit-codec", str(fitted), "--data", "/no/where"]) == 2
    assert re.fullmatch(
        rf"hybridvq: {fitted}/codec.safetensors exists already, and files made with it will not open with other "
        r"tables; choose a new folder as --out, or add --overwrite\n",
        capsys.readouterr().err,
    )
    assert (fitted / FILE).read_bytes() == before
    assert main(["fit-codec", str(fitted), *WORDS, "--overwrite"]) == 0
    assert load_tables(fitted).model == weight_hash(fitted)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("Yes\n", 0), ("\n", 2), ("n\n", 2), ("", 2)])
def test_a_terminal_is_asked(fitted, monkeypatch, capsys, answer, code):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    before = (fitted / FILE).read_bytes()
    assert main(["fit-codec", str(fitted), *WORDS]) == code
    assert "exists already, and files made with it will not open with other tables. Replace it? [y/N] " in (
        capsys.readouterr().err
    )
    assert ((fitted / FILE).read_bytes() == before) == (code == 2)


def test_bars_name_what_is_done(fitted, monkeypatch):
    shown = []

    def track(steps, doing):
        shown.append((doing, len(steps)))
        return steps

    monkeypatch.setattr("hybridvq.commands.fit_codec.progress", track)
    assert main(["fit-codec", str(fitted), *WORDS, "--overwrite"]) == 0
    steps = int(WORDS[WORDS.index("--steps") + 1])
    assert shown == [("encoding images", 1), ("tables of stage 1 of 1", steps), ("encoding images", 1)]


def test_tables_that_others_read(fitted, tmp_path, monkeypatch, capsys):
    """A bundled model by its name and by its path, one of the hub, and a folder of the hub's cache."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(fitted))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    saved = []
    monkeypatch.setattr(Tables, "save", lambda self, folder: saved.append(folder))
    bundled = Path(hybridvq.__file__).parent / "pretrained" / "photos-gain-shape"
    for model in ("photos-gain-shape", str(bundled), "someone/model", str(fitted)):
        assert main(["fit-codec", model, *WORDS, "--overwrite"]) == 2
        assert capsys.readouterr().err == (
            f"hybridvq: {model} has tables that others read too; give a new folder as --out for tables of your own\n"
        )
    assert not saved


def test_a_copy_that_cannot_be_written(fitted, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    words = ["fit-codec", str(fitted), *WORDS, "--out"]
    assert main([*words, str(tmp_path / "full")]) == 2
    assert f"{tmp_path}/full exists already; choose another --out, or remove it first" in capsys.readouterr().err
    monkeypatch.setattr("shutil.copyfile", full)
    assert main([*words, str(tmp_path / "new")]) == 2
    assert f"{tmp_path}/new cannot be written (No space left on device)" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "model"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("/no/where", "there is no model folder /no/where"),
        ("MODEL --images 0", "images is 0; it must be at least 1"),
        ("MODEL --steps 0", "steps is 0; it must be at least 1"),
        ("MODEL --size 18", "images of 18 pixels per side do not divide into positions of 4x4"),
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
