"""Tiny models with everything that the page can show, and a page of them."""

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from starlette.testclient import TestClient

from codec import hybrids
from codec import models as codecs
from hybridvq import build_prior, load_tokenizer
from hybridvq.app.models import load_model, load_models
from hybridvq.app.uploads import Uploads
from hybridvq.priors import save_prior
from hybridvq.tokenizer import weight_hash

CLASSES = ("dark", "light")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A gain-shape model, a VQ-VAE and a hybrid one, with tables, and a conditional prior over the first's tokens."""
    root = tmp_path_factory.mktemp("page")
    model, baseline = codecs.save_codec(root / "gain-shape"), codecs.save_codec(root / "vq", "vector", f=8)
    torch.manual_seed(0)
    small = {"width": 16, "layers": 1, "heads": 2}
    prior = build_prior("transformer", load_tokenizer(model).quantizer.space(), (4, 4), len(CLASSES), small)
    save_prior(prior, root / "prior", weight_hash(model), CLASSES)
    shutil.copytree(model, root / "prior" / "tokenizer")
    return {"model": model, "baseline": baseline, "prior": root / "prior", "hybrid": hybrids.save(root / "hybrid")}


@pytest.fixture(scope="session")
def loaded(folders):
    return load_models(*(str(folders[name]) for name in ("model", "baseline", "prior", "hybrid")))


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


def site_of(models, root, **how):
    """The page, made within an event loop, since Gradio leaves one open otherwise."""

    async def build():
        from hybridvq.app.page import build_page, build_site

        uploads = Uploads(root)
        page = build_page(models, uploads)
        site = build_site(page, uploads, **how)
        site.state.blocks, site.state.uploads = page, uploads
        return site

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, build()).result()


@pytest.fixture(scope="module")
def site(loaded, tmp_path_factory):
    return site_of(loaded, tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="module")
def client(site):
    """A browser's requests to the page, without a browser."""
    with TestClient(site, base_url="http://127.0.0.1:7860") as client:
        yield client
