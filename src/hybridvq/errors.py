"""Every failure a user can cause, in one tree.

    HybridVQError
    ├── ConfigError       a setting, recipe key or command-line value that cannot be used
    │   └── MissingExtraError      an optional package that is not installed
    ├── DataError         a data set or image that cannot be read
    ├── ShapeError        a tensor whose shape does not fit the model
    ├── ModelError        a saved model or checkpoint that cannot be loaded
    ├── CodecError        a compressed file that cannot be read, or tokens that cannot be compressed
    └── TrainingError     a run that had to stop (a loss that is not finite, a full disk)
        └── LostProcessError   because another of its processes had stopped, or never came

Each message is one sentence that names the file, key or value and says what to do. The command line prints
it without a traceback and exits with code 2. What follows a misspelled name is written here too: `did_you_mean`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class HybridVQError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(HybridVQError, ValueError):
    """A setting, recipe key or command-line value cannot be used."""


class MissingExtraError(ConfigError, ImportError):
    """An optional package is not installed."""


class DataError(HybridVQError):
    """A data set or an image cannot be read."""


class ShapeError(HybridVQError, ValueError):
    """A tensor's shape does not fit the model."""


class ModelError(HybridVQError):
    """A saved model or checkpoint cannot be loaded."""


class CodecError(HybridVQError):
    """A compressed file cannot be read, or tokens cannot be compressed."""


class TrainingError(HybridVQError):
    """A training run had to stop."""


class LostProcessError(TrainingError):
    """A training run had to stop because another of its processes had stopped, or never came."""


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """A question to follow a word that is none of the names: was the nearest meant? Empty if none is near."""
    bare = {name.lstrip("-"): name for name in names}
    near = get_close_matches(str(word).lstrip("-"), bare, n=1)
    return f" (did you mean {bare[near[0]]}?)" if near else ""
