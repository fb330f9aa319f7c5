"""Codecs of tiny models, trained for a moment, with their tables fitted."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from skimage.data import chelsea

import tiny
from hybridvq import Codec, Tokenizer
from hybridvq.codec import TokenCoder, fit_tables, read
from hybridvq.data import EvalBatches
from hybridvq.tokenizer import weight_hash

STEPS = 60


def save_codec(
    folder: Path, name: str = "gain-shape", f: int = 4, stages: int = 1, seed: int = 0, rate_weight: float = 0.0
) -> Path:
    """A model folder as `train` and `fit-codec` leave it."""
    options = {"code_dim": 3, "normalize": True, "beta": 0.0} | ({"rate_weight": rate_weight} if rate_weight else {})
    settings = tiny.model(name, **(options | {"stages": stages} if name == "gain-shape" else options))
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
def photo(height: int, width: int) -> np.ndarray:
    """The top left of a photograph of a cat, (H, W, 3) uint8, up to 300x451."""
    return np.ascontiguousarray(chelsea()[:height, :width])


def load(folder: Path) -> Codec:
    return Codec.load(folder, "cpu")


def tokens_of(codec: Codec, data: bytes):
    header, streams = read(data)
    return TokenCoder(codec.tables, header.mode).decode(streams, header.grid)
