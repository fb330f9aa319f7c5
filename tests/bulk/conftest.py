"""Models whose codes have been started from data, and the photographs they are tried on."""

from pathlib import Path

import pytest
import torch

import tiny
from hybridvq import Tokenizer
from hybridvq.data import EvalBatches


def save_model(folder: Path, name: str = "vector", seed: int = 0) -> Path:
    settings = tiny.model(name)
    torch.manual_seed(seed)
    made = Tokenizer(settings.dim, settings.downsampling, settings.quantizer, settings.options)
    made.train()
    batches = EvalBatches(tiny.images("train"), 64)
    for step in range(5):  # past the warm-up of the frequency table
        made(batches[step])
    made.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), "gain-shape")


@pytest.fixture(scope="session")
def images():
    return tiny.images("test")
