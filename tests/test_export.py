"""The exported files compute what the model does, and say what they are."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import hybridvq.export
from hybridvq import ConfigError, ModelError, Tokenizer, Tokens, export_onnx, load_tokenizer
from hybridvq.export import ABOUT, DECODER, ENCODER, KEY, check_new, settle, write

HALF = 32
GAIN_SHAPE = {"codebook_size": 100, "levels": 4}
MODELS = {
    "vector": (2, "vector", {"codebook_size": 2 * HALF, "code_dim": 3, "normalize": True}),
    "projected": (2, "projected", {"codebook_size": 50, "learn": "ema"}),
    "gain-shape": (2, "gain-shape", GAIN_SHAPE),
    "gain-shape-float": (2, "gain-shape", GAIN_SHAPE | {"levels": None, "gradient": "rotation"}),
    "gain-shape-rate": (
        4, "gain-shape", GAIN_SHAPE | {"stages": 2, "code_dim": 3, "normalize": True, "beta": 0.0, "rate_weight": 0.05}
    ),
    "frequency": (2, "frequency", {"codebook_size": 50, "frequent": 20, "warmup_steps": 0, "learn": "ema"}),
    "fsq": (2, "fsq", {"grid": [5, 4, 3]}),
    "identity": (2, "identity", {}),
    "gaussian": (2, "gaussian", {}),
}  # fmt: skip
PARTS = {
    "vector": ["codes"],
    "fsq": ["codes"],
    "frequency": ["codes", "vectors", "passed"],
    "identity": ["vectors"],
    "gaussian": ["vectors"],
}


def save_tokenizer(folder, downsampling, quantizer, options):
    """A small tokenizer, its codes, gains and statistics started from data."""
    torch.manual_seed(0)
    made = Tokenizer(8, downsampling, quantizer, options).train()
    for _ in range(3):
        made(torch.rand(8, 3, 6 * downsampling, 6 * downsampling) * 2 - 1)
    if quantizer == "vector":  # every code twice: each position is a tie
        made.quantizer.codebook.weight.data[HALF:] = made.quantizer.codebook.weight.data[:HALF]
    made.save_pretrained(folder)


@dataclass
class Exported:
    name: str
    model: Path
    folder: Path
    about: dict

    def session(self, file):
        return onnxruntime.InferenceSession(self.folder / file, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    save_tokenizer(place / "model", *MODELS[request.param])
    about = export_onnx(place / "model", place / "made" / "out")
    return Exported(request.param, place / "model", place / "made" / "out", about)


def run(session, **inputs):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@torch.no_grad()
def test_tokens_and_images_are_those_of_the_model(exported):
    tokenizer, f = load_tokenizer(exported.model), MODELS[exported.name][0]
    encoder, decoder = exported.session(ENCODER), exported.session(DECODER)
    for batch, h, w in [(1, 1, 1), (1, 4, 7), (3, 6, 2), (5, 3, 5)]:
        x = torch.rand(batch, 3, f * h, f * w, generator=torch.Generator().manual_seed(batch)) * 2 - 1
        expected = tokenizer.encode(x).parts
        tokens = run(encoder, x=x.numpy())
        assert list(tokens) == list(expected) == PARTS.get(exported.name, ["codes", "gains"])
        for name, part in expected.items():
            assert tokens[name].dtype == part.numpy().dtype
            np.testing.assert_allclose(tokens[name], part.numpy(), rtol=0, atol=1e-5 if part.is_floating_point() else 0)
        x_hat = tokenizer.decode(Tokens(**expected)).numpy()
        given = {name: part.numpy() for name, part in expected.items()}
        np.testing.assert_allclose(run(decoder, **given)["x_hat"], x_hat, rtol=0, atol=1e-5)
        np.testing.assert_allclose(run(decoder, **tokens)["x_hat"], x_hat, rtol=0, atol=1e-5)
        if exported.name == "vector":
            assert tokens["codes"].max() < HALF  # ties go to the lowest index


def test_files_say_what_they_are(exported):
    about = json.loads((exported.folder / ABOUT).read_text())
    assert about == exported.about
    f, quantizer, options = MODELS[exported.name]
    content = (exported.model / "model.safetensors").read_bytes()
    assert about["model"]["sha256"] == hashlib.sha256(content).hexdigest()
    asked = {"dim": 8, "downsampling": f, "quantizer": quantizer, "options": options}
    assert about["model"]["config"] == asked | {"network": "published"} | dict.fromkeys(
        ("network_options", "encoder", "decoder", "size")
    )
    assert [about[key] for key in ("downsampling", "codebook_size", "levels", "stages")] == [
        f, 60 if quantizer == "fsq" else options.get("codebook_size"), options.get("levels"), options.get("stages", 1)
    ]  # fmt: skip
    assert set(about["versions"]) == {"hybridvq", "torch", "onnx", "opset"}
    for file in (ENCODER, DECODER):
        session = exported.session(file)
        assert json.loads(session.get_modelmeta().custom_metadata_map[KEY]) == about
        for side, ends in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            told = [(end["name"], end["dtype"], end["shape"]) for end in about["files"][file][side]]
            types = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "bool"}
            assert told == [(end.name, types[end.type], end.shape) for end in ends]
    assert about["files"][ENCODER]["inputs"][0]["shape"] == ["batch", 3, f"{f}*h", f"{f}*w"]
    widths = {"vectors": 8, "passed": 1}
    for tokens in (about["files"][ENCODER]["outputs"], about["files"][DECODER]["inputs"]):
        for part in tokens:
            assert part["shape"] == ["batch", widths.get(part["name"], options.get("stages", 1)), "h", "w"]


def test_the_folder_holds_three_files_and_no_trace_of_this_machine(exported):
    assert [path.name for path in exported.folder.parent.iterdir()] == ["out"]
    assert {path.name for path in exported.folder.iterdir()} == {ENCODER, DECODER, ABOUT}
    for file in (ENCODER, DECODER):
        onnx.checker.check_model(onnx.load(exported.folder / file), full_check=True)
        content = (exported.folder / file).read_bytes()
        for home in (hybridvq.__file__, torch.__file__, __file__):
            assert str(Path(home).parent).encode() not in content


def test_flags_become_values():
    module = torch.nn.BatchNorm2d(2)
    settle(module)
    assert type(module.num_batches_tracked) is int
    assert set(dict(module.named_buffers())) == {"running_mean", "running_var"}


# What goes wrong


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"^this needs {name}, which .*; pip install '.+\[export\]'$"):
        export_onnx("model", tmp_path / "out")


def test_missing_models_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model folder \./nowhere"):
        export_onnx("./nowhere", tmp_path / "out")


def test_nothing_is_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match=f"{out} exists already; choose another --out, or remove it first"):
            export_onnx("model", out)


def test_an_empty_folder_will_do(tmp_path):
    out = tmp_path / "empty"
    out.mkdir()
    check_new(out)
    write({ENCODER: onnx.ModelProto()}, {"format": 1}, out)
    assert {path.name for path in out.iterdir()} == {ENCODER, ABOUT}


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path, content):
        if path.name == DECODER:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(hybridvq.export, "write_whole", full)
    with pytest.raises(ConfigError, match=r"out cannot be written \(No space left on device\); choose another --out"):
        write({ENCODER: onnx.ModelProto(), DECODER: onnx.ModelProto()}, {}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot be written .*; choose another --out"):
        write({}, {}, tmp_path / "file" / "out")
