import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from hybridvq import ConfigError, ModelError, ShapeError, Tokenizer, load_tokenizer
from hybridvq.quantizers import Tokens


def tokenizer(name="vector", downsampling=4, **options):
    """A small tokenizer whose codes have been started from a batch."""
    settings = tiny.model(name, **options)
    torch.manual_seed(0)
    made = Tokenizer(settings.dim, downsampling, settings.quantizer, settings.options)
    made.train()(images(n=16, side=32))
    return made.eval()


def images(n=2, side=16, width=None):
    return torch.rand(n, 3, side, width or side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", tiny.MODELS)
@torch.no_grad()
def test_saving_and_loading_is_exact(tmp_path, name):
    made = tokenizer(name)
    made.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert not loaded.training
    x = images()
    tokens, again = made.encode(x), loaded.encode(x)
    assert set(vars(tokens)) == {"codes", "gains", "vectors", "passed"}
    for key, value in vars(tokens).items():
        assert (value is None) == (vars(again)[key] is None)
        assert value is None or torch.equal(value, vars(again)[key])
    assert torch.equal(loaded.decode(tokens), made.decode(tokens))
    torch.testing.assert_close(made.decode(tokens), made(x).x_hat)


@pytest.mark.parametrize("name", tiny.MODELS)
@torch.no_grad()
def test_decoding_reads_tokens_alone(name):
    """Tokens copied and stripped of everything else, decoded by a model whose encoder is destroyed."""
    made, x = tokenizer(name), images()
    expected = made(x).x_hat
    tokens = Tokens(**{key: None if value is None else value.clone() for key, value in vars(made.encode(x)).items()})
    for parameter in made.encoder.parameters():
        parameter.fill_(torch.nan)
    torch.testing.assert_close(made.decode(tokens), expected)


@pytest.mark.parametrize("downsampling", [2, 4, 8])
@torch.no_grad()
def test_shapes(downsampling):
    made = tokenizer(downsampling=downsampling)
    x = images(3, 16, 24)
    result = made(x)
    h, w = 16 // downsampling, 24 // downsampling
    assert result.z.shape == result.quantized.z_hat.shape == (3, 8, h, w)
    assert result.quantized.tokens.codes.shape == (3, 1, h, w)
    assert result.quantized.tokens.codes.dtype == torch.int64
    assert result.x_hat.shape == x.shape
    assert result.x_hat.abs().max() <= 1


@pytest.mark.parametrize(
    "shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 18, 16), (1, 3, 16, 15), (2, 3, 0, 0), (1, 3, 0, 8)]
)
def test_wrong_shapes_are_named(shape):
    made = Tokenizer(dim=8)
    for method in (made, made.encode):
        with pytest.raises(ShapeError, match=rf"x has shape \({', '.join(map(str, shape))}\); .* multiples of 4"):
            method(torch.zeros(shape))


@pytest.mark.parametrize(("size", "near"), [(30, 32), (3, 4), (1, 4), (0, 4), (17, 16)])
def test_sizes_that_do_not_divide(size, near):
    with pytest.raises(ShapeError, match=f"images of {size} pixels .* such as {near}$"):
        Tokenizer(dim=8).check_size(size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"downsampling": 3}, "downsampling is 3"),
        ({"quantizer": "vectr"}, "no quantizer named 'vectr'"),
        ({"options": {"size": 3}}, "the vector quantizer has no option 'size'; it takes codebook_size"),
        ({"options": {"beta": "x"}}, r"options \{'beta': 'x'\} has a value that cannot be used"),
        ({"options": {"codebook_size": 1.5}}, "cannot be used"),
        ({"quantizer": "frequency"}, "needs the option 'frequent'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Tokenizer(**arguments)


@pytest.fixture
def saved(tmp_path):
    tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_run_folder_will_do(saved):
    assert torch.equal(
        load_tokenizer(saved.parent).encoder.layers[0].weight, load_tokenizer(str(saved)).encoder.layers[0].weight
    )


def test_loading_prints_nothing(saved, capfd):
    load_tokenizer(saved)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_incomplete_folders(saved, name):
    (saved / name).unlink()
    with pytest.raises(ModelError, match=rf"holds no {name}; give a folder"):
        load_tokenizer(saved)


@pytest.mark.parametrize("model", ["nowhere", "no/where/at/all", "./no/where", "/no/where"])
def test_missing_folders(model):
    with pytest.raises(ModelError, match=f"there is no model folder {model}"):
        load_tokenizer(model)


def test_a_hub_id_that_cannot_be_reached(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("hybridvq.tokenizer.snapshot_download", offline)
    with pytest.raises(ModelError, match=r"no folder owner/name here, and no such model .* \(ConnectionError\); check"):
        load_tokenizer("owner/name")


def test_a_hub_id_is_downloaded(saved, monkeypatch):
    monkeypatch.setattr("hybridvq.tokenizer.snapshot_download", lambda name, allow_patterns: str(saved))
    assert load_tokenizer("owner/name").dim == 8


@pytest.mark.parametrize("damage", ["truncated", "empty", "junk"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_named(saved, name, damage):
    whole = (saved / name).read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "junk": b"\xff" * len(whole)}[damage]
    (saved / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{saved} does not hold a tokenizer that this version can load") as caught:
        load_tokenizer(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 3}, "colour"),
        ({"quantizer": "nope"}, "nope"),
        ({"dim": 16}, "size mismatch"),
        ({"quantizer": "identity", "options": None}, "quantizer.codebook"),
    ],
)
def test_configs_that_do_not_fit_the_weights(saved, change, message):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=f"does not hold a tokenizer that this version can load .*{message}"):
        load_tokenizer(saved)


def test_no_weight_is_left_at_random(saved):
    path = saved / "model.safetensors"
    state = load_file(path)
    del state["decoder.layers.3.weight"]
    save_file(state, path)
    with pytest.raises(ModelError, match=r"decoder\.layers\.3\.weight"):
        load_tokenizer(saved)
