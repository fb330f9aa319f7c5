"""Tokens to files and back, without a float on the way.

codes, levels ──TokenCoder(tables)──► [stream] ──write──► bytes ──read──► [stream] ──TokenCoder(tables)──► codes, levels

integers.py   logits and weights to counts out of 2^24
tables.py     `Tables`: what the counts are made of; `load_tables`
fit.py        `fit_tables`, the only file that imports torch
coder.py      `TokenCoder`
format.py     `Header`, `read`, `write`: the container .hvq
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridvq.codec.coder import TokenCoder
from hybridvq.codec.format import Header, Part, check_model, describe, header_of, read, truncate, write
from hybridvq.codec.tables import CONTEXTUAL, STATIC, StageTables, Tables, load_tables

if TYPE_CHECKING:
    from hybridvq.codec.fit import fit_tables

__all__ = [
    "CONTEXTUAL",
    "STATIC",
    "Header",
    "Part",
    "StageTables",
    "Tables",
    "TokenCoder",
    "check_model",
    "describe",
    "fit_tables",
    "header_of",
    "load_tables",
    "read",
    "truncate",
    "write",
]


def __getattr__(name: str) -> Any:
    if name != "fit_tables":  # decoding needs no torch
        raise AttributeError(f"module 'hybridvq.codec' has no attribute {name!r}")
    return import_module("hybridvq.codec.fit").fit_tables
