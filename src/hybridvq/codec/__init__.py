"""Images to files and back; the tokens between them without a float on the way.

image ──Codec.compress──► .hvq ──Codec.decompress──► image, by way of the tokens of all tiles and

codes, levels ──TokenCoder(tables)──► [stream] ──write──► bytes ──read──► [stream] ──TokenCoder(tables)──► codes, levels

image.py      `Codec`, `compress`, `decompress`
choose.py     tokens that cost less than the nearest
targets.py    the setting that meets a size or a quality
files.py      image files to `.hvq` files and back
integers.py   logits and weights to counts out of 2^24
tables.py     `Tables`: what the counts are made of; `load_tables`
fit.py        `fit_tables`
coder.py      `TokenCoder`
format.py     `Header`, `read`, `write`: the container .hvq, version 1

and of hybrid models, whose tokens are codes and coefficients:

hybrid.py        images of any size to both and back
scales.py        `ScaleTables`: the probabilities of coefficients, from the codes
coefficients.py  coefficients to bytes and back
layered.py       the container .hvq, version 2
versions.py      `describe`, `truncate` of files of either
fit_scales.py    `fit_scales`

rivals.py        JPEG and WebP files of about the same size
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridvq.codec.coder import TokenCoder
from hybridvq.codec.format import Header, Part, check_model, header_of, read, write
from hybridvq.codec.scales import ScaleTables
from hybridvq.codec.tables import CONTEXTUAL, STATIC, StageTables, Tables, load_tables
from hybridvq.codec.versions import describe, truncate

if TYPE_CHECKING:
    from hybridvq.codec.fit import fit_tables
    from hybridvq.codec.hybrid import Draw
    from hybridvq.codec.image import Codec, compress, decompress

# Loaded on first use: decoding tokens needs no torch.
_HOMES = {"fit_tables": "fit", "Codec": "image", "compress": "image", "decompress": "image", "Draw": "hybrid"}

__all__ = [
    "CONTEXTUAL",
    "STATIC",
    "Codec",
    "Draw",
    "Header",
    "Part",
    "ScaleTables",
    "StageTables",
    "Tables",
    "TokenCoder",
    "check_model",
    "compress",
    "decompress",
    "describe",
    "fit_tables",
    "header_of",
    "load_tables",
    "read",
    "truncate",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridvq.codec' has no attribute {name!r}")
    return getattr(import_module(f"hybridvq.codec.{_HOMES[name]}"), name)
