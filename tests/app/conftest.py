"""Tiny models with everything that the page can show."""

import shutil

import pytest
import torch

from codec import models as codecs
from hybridvq import build_prior, load_tokenizer
from hybridvq.app.models import load_model, load_models
from hybridvq.priors import save_prior
from hybridvq.tokenizer import weight_hash

CLASSES = ("dark", "light")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A gain-shape model, a VQ-VAE, both with tables, and a conditional prior over the first one's tokens."""
    root = tmp_path_factory.mktemp("page")
    model, baseline = codecs.save_codec(root / "gain-shape"), codecs.save_codec(root / "vq", "vector", f=8)
    torch.manual_seed(0)
    small = {"width": 16, "layers": 1, "heads": 2}
    prior = build_prior("transformer", load_tokenizer(model).quantizer.space(), (4, 4), len(CLASSES), small)
    save_prior(prior, root / "prior", weight_hash(model), CLASSES)
    shutil.copytree(model, root / "prior" / "tokenizer")
    return {"model": model, "baseline": baseline, "prior": root / "prior"}


@pytest.fixture(scope="session")
def loaded(folders):
    return load_models(*(str(folders[name]) for name in ("model", "baseline", "prior")))


@pytest.fixture(scope="session")
def bare_folder(folders, tmp_path_factory):
    """The gain-shape model without its tables."""
    folder = tmp_path_factory.mktemp("bare") / "bare"
    shutil.copytree(folders["model"], folder)
    (folder / "codec.safetensors").unlink()
    return folder


@pytest.fixture(scope="session")
def bare(bare_folder):
    return load_model(str(bare_folder))
