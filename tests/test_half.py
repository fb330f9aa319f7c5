"""Models in half precision: half the bytes, the same tokens' meaning, nearly the same pictures."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from hybridvq import ConfigError, ModelError, Tokenizer, load_prior, load_tokenizer
from hybridvq.cli import main
from hybridvq.half import save_half
from hybridvq.priors import StaticPrior, save_prior, save_with_tokenizer, tokenizer_of_prior
from hybridvq.tokenizer import weight_hash


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    Tokenizer(
        dim=32, quantizer="gain-shape", options={"codebook_size": 16, "levels": 4, "code_dim": 3}
    ).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_weights_are_rounded_and_what_tokens_stand_for_is_not(model, tmp_path):
    path = save_half(model, tmp_path / "half")
    before, after = load_file(model / "model.safetensors"), load_file(path)
    assert before.keys() == after.keys()
    for name, value in before.items():
        half = value.ndim > 1 and not name.startswith("quantizer.")
        assert after[name].dtype == (torch.float16 if half else value.dtype), name
        assert torch.equal(after[name], value.half() if half else value), name
    assert path.stat().st_size < 0.6 * (model / "model.safetensors").stat().st_size


def test_the_model_loads_as_float32_and_shows_nearly_the_same(model, tmp_path):
    save_half(model, tmp_path / "half")
    whole, half = load_tokenizer(model), load_tokenizer(tmp_path / "half")
    assert {value.dtype for value in half.parameters()} == {torch.float32}
    x = tiny.test_batches()[0]
    with torch.inference_mode():
        tokens = whole.encode(x)
        np.testing.assert_allclose(half.decode(tokens), whole.decode(tokens), atol=5e-3)


def test_the_command_says_how_large_the_file_is(model, tmp_path, capsys):
    assert main(["export", str(model), "--format", "half", "--out", str(tmp_path / "half")]) == 0
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert f"model.safetensors: {size / 1e6:.2f} MB" in capsys.readouterr().out


def test_a_prior_too(model, tmp_path):
    tokenizer = load_tokenizer(model)
    prior = StaticPrior(tokenizer.quantizer.space(), (4, 4))
    save_prior(prior, tmp_path / "prior", "0" * 64)
    save_half(tmp_path / "prior", tmp_path / "half")
    assert load_prior(tmp_path / "half").shape == (4, 4)


def test_a_prior_keeps_its_copy_of_the_tokenizer(model, tmp_path):
    space = load_tokenizer(model).quantizer.space()
    save_with_tokenizer(StaticPrior(space, (4, 4)), tmp_path / "prior", model)
    save_half(tmp_path / "prior", tmp_path / "half")
    copy = tokenizer_of_prior(tmp_path / "half")
    assert copy.parent == tmp_path / "half"
    assert weight_hash(copy) == weight_hash(model)
    assert load_prior(tmp_path / "half", copy).shape == (4, 4)


def test_what_float16_cannot_hold_is_refused(model, tmp_path):
    weights = load_file(model / "model.safetensors")
    weights["encoder.layers.0.weight"][0, 0, 0, 0] = 1e6
    save_file(weights, model / "model.safetensors")
    with pytest.raises(ModelError, match=r"encoder.layers.0.weight holds values that float16 does not"):
        save_half(model, tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_nothing_is_replaced(model, tmp_path):
    (tmp_path / "half").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        save_half(model, tmp_path / "half")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        save_half(model, tmp_path / "file" / "half")
