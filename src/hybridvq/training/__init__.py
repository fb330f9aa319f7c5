"""Train a tokenizer: the only package that knows Lightning.

    one step ──► losses into History ──► test measurement, when due ──► checkpoint, when due

A checkpoint therefore holds everything up to its step, and a resumed run repeats nothing and skips nothing.
"""

from hybridvq.training.history import History
from hybridvq.training.run import resolve_precision, train

__all__ = ["History", "resolve_precision", "train"]
