"""Hybrid models with random weights, and tables for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from codec import models
from hybridvq import Codec, Tokenizer
from hybridvq.codec import ScaleTables, fit_tables
from hybridvq.codec.fit_scales import fit_scales
from hybridvq.codec.hybrid import encode
from hybridvq.tokenizer import weight_hash

DIM, GROUPS, CODES = 12, 2, 6
OPTIONS = {"groups": GROUPS, "codebook_size": CODES, "code_dim": 2, "width": 8, "aside_steps": 0}
NETWORK = {"widths": [4, 4], "decoder_width": 4}


def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(DIM, 8, "hybrid", OPTIONS, "photo", NETWORK).eval()
    with torch.no_grad():
        for parameter in [*model.encoder.layers.parameters(), *model.decoder.layers.parameters()]:
            parameter += 0.01 * torch.randn_like(parameter)
        for parameter in model.quantizer.structure.decoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for book in model.quantizer.structure.codebooks:
            book.weight.normal_()
    return model


def codec() -> Codec:
    """With tables fitted for a moment."""
    model = tokenizer()
    photo = models.photo(160, 192)
    x = torch.from_numpy(photo).movedim(-1, 0)[None].float() / 127.5 - 1
    with torch.inference_mode():
        z = model.encoder(x)
        guess = model.quantizer.structure(z, False)
    tables = fit_tables([(guess.codes.numpy(), None)], model, "ab" * 32, width=8, steps=5)
    scales = fit_scales([(guess.codes, z - guess.mean)], model.quantizer, steps=20, width=8)
    return Codec(model, replace(tables, scales=scales))


def save(folder: Path) -> Path:
    """A model folder as `train` and `fit-codec` leave it."""
    made = codec()
    made.tokenizer.save_pretrained(folder)
    replace(made.tables, model=weight_hash(folder)).save(folder)
    return folder


def scales(codec: Codec) -> ScaleTables:
    assert codec.tables.scales is not None
    return codec.tables.scales


def latent(codec: Codec, image: np.ndarray):
    return encode(codec.tokenizer, codec.tables, image)
