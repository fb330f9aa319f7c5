import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tiny
from hybridvq import ConfigError, DataError, ModelError, ShapeError, Tokenizer, VectorQuantizer, load_tokenizer
from hybridvq.quantizers import Tokens


def tokenizer(name="vector", downsampling=4, **options):
    """A small tokenizer whose codes have been started from a batch."""
    settings = tiny.model(name, **options)
    torch.manual_seed(0)
    made = Tokenizer(settings.dim, downsampling, settings.quantizer, settings.options)
    made.train()(images(n=16, side=32))
    if name in tiny.COUNTING:
        made.quantizer.steps.fill_(made.quantizer.aside_steps)
    return made.eval()


def images(n=2, side=16, width=None):
    return torch.rand(n, 3, side, width or side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", tiny.MODELS | tiny.COUNTING)
@torch.no_grad()
def test_saving_and_loading_is_exact(tmp_path, name):
    made = tokenizer(name)
    made.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert not loaded.training
    x = images()
    tokens, again = made.encode(x), loaded.encode(x)
    assert set(vars(tokens)) == {"codes", "gains", "vectors", "passed", "coefficients", "step"}
    for key, value in vars(tokens).items():
        assert (value is None) == (vars(again)[key] is None)
        assert value is None or torch.equal(value, vars(again)[key])
    assert torch.equal(loaded.decode(tokens), made.decode(tokens))
    torch.testing.assert_close(made.decode(tokens), made(x).x_hat)


@pytest.mark.parametrize("name", tiny.MODELS | tiny.COUNTING)
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


@pytest.mark.parametrize("shape", [(2, 3, 0, 0), (1, 3, 0, 16)])
def test_images_without_pixels_are_named(shape):
    with pytest.raises(ShapeError, match="x has shape"):
        Tokenizer(dim=8).encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (255.0, r"x has values from 0 to 255; images lie in \[-1, 1\]: of values in 0 to 255, give x / 127.5 - 1"),
        (-1.5, "x has values from -1.5 to 0;"),
        (torch.inf, "x has values from 0 to inf;"),
        (torch.nan, "x holds NaN;"),
    ],
)
@pytest.mark.parametrize("name", tiny.MODELS)
@torch.no_grad()
def test_values_that_are_no_image_are_refused(name, value, sentence):
    made, x = tokenizer(name), torch.zeros(2, 3, 16, 16)
    x[1, 2, 3, 4] = value
    for method in (made, made.encode):
        with pytest.raises(DataError, match=sentence):
            method(x)


def test_bytes_are_refused():
    with pytest.raises(ShapeError, match=r"x is torch.uint8; .* give x / 127.5 - 1"):
        Tokenizer(dim=8).encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_the_ends_of_the_range_and_no_image_at_all_are_fine():
    made = Tokenizer(dim=8).eval()
    made.encode(torch.tensor([-1.0, 1.0]).repeat(1, 3, 16, 8))
    assert len(made.encode(torch.zeros(0, 3, 16, 16)).codes) == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", tiny.MODELS)
def test_a_quantizer_refuses_what_is_not_finite(name, value):
    quantizer = tokenizer(name).quantizer
    z = torch.zeros(2, 8, 4, 4)
    z[1, 2, 3, 3] = value
    with pytest.raises(DataError, match="z holds NaN or infinity"):
        quantizer(z)


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
        ({"options": {"beta": "x"}}, "beta is 'x'; it must be a number"),
        ({"options": {"codebook_size": 1.5}}, "codebook_size is 1.5; it must be a whole number"),
        ({"quantizer": "frequency"}, "needs the option 'frequent'"),
        ({"network": "unet"}, "there is no network named 'unet'; choose one of published, photo"),
        ({"network_options": {"widths": [4, 4]}}, "the published network has no option 'widths'; it takes no options"),
        ({"network": "photo", "downsampling": 8, "network_options": {"width": 4}}, "it takes widths, decoder_width"),
        ({"network": "photo", "downsampling": 4}, "downsampling is 4; the photo network has 8 alone"),
        ({"network": "photo", "downsampling": 8, "dim": 193}, "dim is 193; it must be a whole number from 1 to 192"),
        ({"network": "photo", "downsampling": 8, "network_options": {"widths": [4]}}, r"widths are \[4\]; give 2"),
        ({"network": "photo", "downsampling": 8, "network_options": {"widths": 4}}, "widths are 4; give 2"),
        ({"network": "photo", "downsampling": 8, "network_options": {"decoder_width": 0.5}}, "network is 0.5; it must"),
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

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ModelError, match=r"no folder owner/name here, and no such model .* \(ConnectionError\); check"):
        load_tokenizer("owner/name")


def test_a_hub_id_is_downloaded(saved, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: str(saved))
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
        ({"color": 3}, "color"),
        ({"quantizer": "nope"}, "nope"),
        ({"dim": 16}, r"encoder.layers.0.weight .* is \(8, 3, 4, 4\), and config.json asks for .* because of dim 16"),
        ({"dim": 65536}, "because of dim 65536"),
        ({"dim": 10**9}, "dim is 1000000000; it must be at most"),
        ({"dim": True}, "dim is True; it must be a whole number"),
        ({"downsampling": 2}, "config.json asks for|besides|lacks"),
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"options": {"codebook_size": 10**6}}, "because of options.codebook_size 1000000"),
        ({"options": {"codebook_size": 64, "code_dim": 10**6}}, "because of options.code_dim 1000000"),
        ({"quantizer": "gain-shape", "options": {"stages": 10**9}}, "options.stages is 1000000000, but model.saf"),
        ({"quantizer": "identity", "options": None}, "holds quantizer.codebook.* besides"),
    ],
)
def test_configs_that_do_not_fit_the_weights(saved, change, message):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=f"does not hold a tokenizer that this version can load .*{message}"):
        load_tokenizer(saved)


@pytest.mark.parametrize(
    "text", ["[1]", "[" * 100_000, '{"dim": 8, "dim": 8}', '{"dim": NaN}', "null", "{" * 9, "1" * 5000]
)
def test_configs_that_are_no_configs(saved, text):
    (saved / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="does not hold a tokenizer that this version can load"):
        load_tokenizer(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.index_fill(0, torch.tensor([1]), torch.nan), "holds a number that is not finite"),
        (lambda x: x.index_fill(0, torch.tensor([1]), -torch.inf), "holds a number that is not finite"),
        (lambda x: x.long(), "is of type I64, and config.json asks for torch.float32"),
        (lambda x: x[1:].clone(), "because of dim 8"),
    ],
)
def test_weights_that_cannot_be_used(saved, change, message):
    path = saved / "model.safetensors"
    state = load_file(path)
    state["encoder.layers.0.weight"] = change(state["encoder.layers.0.weight"])
    save_file(state, path)
    with pytest.raises(ModelError, match=f"encoder.layers.0.weight of model.safetensors .*{message}"):
        load_tokenizer(saved)


def test_the_size_of_the_training_is_kept(tmp_path):
    Tokenizer(dim=8, size=48).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["size"] == 48
    assert load_tokenizer(tmp_path).size == 48
    assert Tokenizer(dim=8).size is None


def test_models_without_a_size_are_loaded(saved):
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    del config["size"]
    (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_tokenizer(saved).size is None


def test_keywords_are_of_the_download(saved, monkeypatch):
    given = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: given.update(more) or str(saved))
    Tokenizer.from_pretrained("owner/name", revision="v1", token=False, cache_dir="c", local_files_only=True)
    assert (given["revision"], given["token"], given["cache_dir"], given["local_files_only"]) == (
        "v1",
        False,
        "c",
        True,
    )
    with pytest.raises(TypeError, match="unexpected keyword argument 'revisoin'"):
        Tokenizer.from_pretrained("owner/name", revisoin="v1")
    assert Tokenizer.from_pretrained(saved, device="cpu").encoder.layers[0].weight.is_cpu


def test_no_weight_is_left_at_random(saved):
    path = saved / "model.safetensors"
    state = load_file(path)
    del state["decoder.layers.3.weight"]
    save_file(state, path)
    with pytest.raises(ModelError, match=r"decoder\.layers\.3\.weight"):
        load_tokenizer(saved)


class Halves(nn.Module):
    """A convolution for every four pixels, from outside the package."""

    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(3, dim, 4, stride=4)

    def forward(self, x):
        return self.conv(x)


class Doubles(nn.Sequential):
    def __init__(self, dim):
        super().__init__(nn.Conv2d(dim, 48, 1), nn.PixelShuffle(4), nn.Tanh())


def modules():
    return {"encoder": Halves(6), "decoder": Doubles(6), "quantizer": VectorQuantizer(6, codebook_size=16)}


@pytest.mark.parametrize(
    "parts", [["encoder"], ["encoder", "decoder"], ["quantizer"], ["encoder", "decoder", "quantizer"]]
)
@torch.no_grad()
def test_modules_in_place_of_names_are_saved_and_taken_back(tmp_path, parts):
    torch.manual_seed(0)
    made = Tokenizer(6, 4, **({"options": {"codebook_size": 16}} | {part: modules()[part] for part in parts}))
    made.train()(images(4, 32))
    made.eval().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path, **{part: modules()[part] for part in parts})
    assert torch.equal(loaded.encode(images()).codes, made.encode(images()).codes)
    assert torch.equal(loaded(images()).x_hat, made(images()).x_hat)
    for missing in parts:
        given = {part: modules()[part] for part in parts if part != missing}
        kind = type(modules()[missing]).__name__
        with pytest.raises(
            ModelError, match=rf"made with a module {kind} as its {missing}; give one like it"
        ) as caught:
            load_tokenizer(tmp_path, **given)
        assert "\n" not in str(caught.value)


def test_a_quantizer_of_another_width_is_refused():
    with pytest.raises(ConfigError, match="dim is 8, but the quantizer was made for vectors of 6 numbers"):
        Tokenizer(8, quantizer=VectorQuantizer(6))


def test_config_of_the_version_before(saved):
    """What config.json held before there was a choice of networks."""
    config = json.loads((saved / "config.json").read_text())
    old = {key: config[key] for key in ("dim", "downsampling", "quantizer", "options")}
    (saved / "config.json").write_text(json.dumps(old))
    assert torch.equal(load_tokenizer(saved).encode(images()).codes, tokenizer().encode(images()).codes)


GOLDEN = Path(__file__).parent / "golden" / "models"


@pytest.mark.parametrize("name", sorted(folder.name for folder in GOLDEN.iterdir()))
@torch.no_grad()
def test_models_that_an_earlier_version_saved_give_the_same_tokens(name):
    """Trained and saved before there were networks by name; of vectors that no rounding brings to another code."""
    loaded = load_tokenizer(GOLDEN / name)
    z = ((torch.arange(4 * 36) * 7919) % 257 - 128).div(64).view(1, 4, 6, 6)
    tokens, pinned = loaded.quantizer(z).tokens, json.loads((GOLDEN / name / "tokens.json").read_text())
    x_hat = loaded.decode(tokens)[0, :, 10]
    assert {*tokens.parts, "x_hat"} == pinned.keys()
    for part, value in (*tokens.parts.items(), ("x_hat", x_hat)):
        expected = torch.tensor(pinned[part], dtype=value.dtype).view_as(value)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-3 if value.is_floating_point() else 0)


def test_a_step_goes_to_the_quantizers_that_have_one():
    with pytest.raises(ConfigError, match=r"step is 0\.5, but VectorQuantizer has no step to round to; leave it out"):
        tokenizer().encode(images(), step=0.5)
    tokens = tokenizer("hybrid").encode(images(), step=0.5)
    assert tokens.step.tolist() == [0.5, 0.5]
