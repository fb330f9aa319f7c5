"""Train tokenizers and priors: the only package that knows Lightning.

    one step ──► losses into a history ──► held-out measurement, when due ──► checkpoint, when due

A checkpoint therefore holds everything up to its step, and a resumed run repeats nothing and skips nothing.

run.py, module.py    a tokenizer, on images
prior.py             a prior, on tokens
engine.py, folder.py, callbacks.py, loggers.py, processes.py    what both share
"""

from hybridvq.training.engine import resolve_precision
from hybridvq.training.history import History, PriorHistory
from hybridvq.training.loggers import LOGGERS, check_loggers
from hybridvq.training.prior import fit_prior, train_prior
from hybridvq.training.run import train

__all__ = [
    "LOGGERS",
    "History",
    "PriorHistory",
    "check_loggers",
    "fit_prior",
    "resolve_precision",
    "train",
    "train_prior",
]
