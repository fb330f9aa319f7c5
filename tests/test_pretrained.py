"""The bundled models: whole, small, found by name without a network, and as good as their cards say."""

import hashlib
import json
import re
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hybridvq import Codec, ModelError, Tokenizer, load_prior, load_tokenizer
from hybridvq.cli import main
from hybridvq.commands.arguments import trained_size
from hybridvq.data import photo_files, read_image
from hybridvq.metrics import psnr_db
from hybridvq.pretrained import pretrained_folder, pretrained_names
from hybridvq.priors import tokenizer_of_prior
from hybridvq.recipe import load_recipe
from hybridvq.saved import model_folder
from hybridvq.tokenizer import weight_hash

TOKENIZERS = ["photos", "photos-gain-shape", "photos-vq"]
SIZE = 128
PRIOR = "cifar10-prior"
# Of the sample photographs, the mean.
LEAST_DB = {"photos": 32.0, "photos-gain-shape": 25.0, "photos-vq": 23.0}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a bundled model needs no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_names():
    assert pretrained_names() == [PRIOR, *TOKENIZERS]
    assert pretrained_folder("photos-f9") is None
    assert pretrained_folder("") is None
    assert pretrained_folder("..") is None


@pytest.mark.parametrize("name", [PRIOR, *TOKENIZERS])
def test_files_are_small_and_convolutions_are_halved(name):
    folder = pretrained_folder(name)
    own = "tokenizer" if name == PRIOR else "codec.safetensors"
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors", own}
    assert sum(path.stat().st_size for path in folder.rglob("*.*")) < 6e6
    weights = load_file(folder / "model.safetensors")
    large = {v.dtype for k, v in weights.items() if k.startswith(("encoder.", "decoder.", "blocks.")) and v.ndim > 1}
    assert large == {torch.float16}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_name_is_enough(name):
    tokenizer = Tokenizer.from_pretrained(name)
    assert not tokenizer.training
    assert {value.dtype for value in tokenizer.parameters()} == {torch.float32}
    again = load_tokenizer(name).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in tokenizer.state_dict().items())
    recipe = load_recipe(name).model
    assert (tokenizer.dim, tokenizer.downsampling, tokenizer.size) == (recipe.dim, recipe.downsampling, SIZE)


@pytest.mark.parametrize(
    "keywords",
    [
        {"device": "cpu"},
        {"revision": "main", "token": False},
        {"cache_dir": "x", "local_files_only": True, "force_download": True},
    ],
)
def test_a_name_is_enough_with_any_keyword(keywords):
    assert Tokenizer.from_pretrained("photos-vq", **keywords).dim == 96
    with pytest.raises(TypeError, match="nope"):
        Tokenizer.from_pretrained("photos-vq", nope=1)


def test_each_is_measured_at_the_size_of_its_training(capsys):
    for name in TOKENIZERS:
        assert trained_size(name) == trained_size(str(pretrained_folder(name))) == SIZE
    assert main(["evaluate", "photos-vq", "--limit", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == SIZE


@pytest.mark.parametrize("name", TOKENIZERS)
def test_photographs_come_back(name):
    codec, found = Codec.load(name), []
    for path in photo_files():
        pixels = read_image(path)
        decoded = np.array(codec.decompress(codec.compress(pixels)).convert("RGB"))
        found.append(psnr_db(float(np.mean((decoded / 127.5 - pixels / 127.5) ** 2))))
    assert np.mean(found) > LEAST_DB[name]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_card_is_of_these_weights(name):
    card = (pretrained_folder(name) / "README.md").read_text()
    assert weight_hash(pretrained_folder(name)) in card
    for said in ("What it was trained on", "Limits", f"hybridvq train --recipe {name}", "bits per pixel"):
        assert said in card


def test_the_prior_has_its_tokenizer_and_draws_each_class(tmp_path, capsys):
    tokenizer = tokenizer_of_prior(PRIOR)
    assert tokenizer == pretrained_folder(PRIOR) / "tokenizer"
    prior = load_prior(PRIOR, tokenizer)
    assert (prior.shape, prior.classes, prior.knows_unlabeled) == ((8, 8), 10, True)
    words = ["--labels", "all", "--count", "1", "--guidance", "3", "--out", str(tmp_path / "samples")]
    assert main(["sample", PRIOR, *words]) == 0
    assert read_image(tmp_path / "samples" / "class003-000.png").shape == (32, 32, 3)
    assert len(list((tmp_path / "samples").iterdir())) == 11


def test_a_prior_without_its_tokenizer_says_so(tmp_path):
    folder = tmp_path / "prior"
    folder.mkdir()
    config = json.loads((pretrained_folder(PRIOR) / "config.json").read_text()) | {"tokenizer": "0" * 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((pretrained_folder(PRIOR) / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=f"{re.escape(str(folder))} holds no copy of its tokenizer; name that with"):
        tokenizer_of_prior(folder)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    Tokenizer(dim=8).save_pretrained(tmp_path / "photos-vq")
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer("photos-vq").dim == 8
    assert Tokenizer.from_pretrained("photos-vq").dim == 8


def test_another_name_lists_them():
    with pytest.raises(ModelError, match=f"bundled models: {PRIOR}, photos, photos-gain-shape, photos-vq"):
        model_folder("photos-f16")


TOKENS_SHA256 = {
    "photos-gain-shape": "4e56f0bb7ca7da98bffcd81db6f9757e7f650b37d0fac1783dc812b231813247",
    "photos-vq": "d75bd8378dea423a4d6a29e8c60bb28ffe72f0ed4ed0d9083db95f1e91316aeb",
}


@pytest.mark.parametrize("name", TOKENS_SHA256)
def test_the_same_vectors_give_the_same_tokens(name):
    """For multiples of 1/64 that no rounding brings from one code to another, without a convolution before."""
    quantizer = load_tokenizer(name).quantizer
    i = torch.arange(quantizer.code_dim * 256)
    z = ((i * 7919 + i * i * 31) % 257 - 128).div(64).view(1, 16, 16, -1).movedim(-1, 1).contiguous()
    parts = quantizer.quantize(z).tokens
    content = b"".join(p.to(torch.int16).numpy().tobytes() for p in (parts.codes, parts.gains) if p is not None)
    assert hashlib.sha256(content).hexdigest() == TOKENS_SHA256[name]
