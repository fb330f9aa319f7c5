"""Codecs of tiny models, trained for a moment, with their tables fitted."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

import tiny
from hybridvq import Codec, Tokenizer
from hybridvq.codec import fit_tables
from hybridvq.data import EvalBatches
from hybridvq.tokenizer import weight_hash

STEPS = 80


def save_codec(folder: Path, name: str = "gain-shape", f: int = 4, stages: int = 1, seed: int = 0) -> Path:
    """A model folder as `train` and `fit-codec` leave it."""
    settings = tiny.model(name, **({"stages": stages} if stages > 1 else {}))
    torch.manual_seed(seed)
    model = Tokenizer(settings.dim, f, settings.quantizer, settings.options).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batches = EvalBatches(tiny.images("train", 32), 32)
    for step in range(STEPS):
        x = batches[step % len(batches)]
        made = model(x)
        loss = (made.x_hat - x).square().mean() + sum(made.quantized.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    with torch.inference_mode():
        made = [model.encode(batches[i]) for i in range(4)]
    tokens = [(t.codes.numpy(), None if t.gains is None else t.gains.numpy()) for t in made]
    fit_tables(tokens, model, weight_hash(folder), width=8, steps=60).save(folder)
    return folder


@cache
def noise(height: int, width: int) -> np.ndarray:
    """Smooth colours and some noise: neither one token over and over nor all at random."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + y / 17), np.cos(x / 13), np.sin(y / 7)], 2)
    return (127.5 + 90 * waves + np.random.default_rng(0).normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)


def load(folder: Path) -> Codec:
    return Codec.load(folder, "cpu")
