"""Train tokenizers and priors: the only package that knows Lightning.

    one step ──► losses into a history ──► held-out measurement, when due ──► checkpoint, when due

A checkpoint therefore holds everything up to its step, and a resumed run repeats nothing and skips nothing.

run.py, module.py    a tokenizer, on images
engine.py, folder.py, callbacks.py, processes.py    what both share
"""

from hybridvq.training.engine import resolve_precision
from hybridvq.training.history import History
from hybridvq.training.run import train

__all__ = ["History", "resolve_precision", "train"]
