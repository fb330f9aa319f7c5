"""Numbers that come from outside, refused by name where they come in."""

from numbers import Integral, Real
from typing import Any

from hybridvq.errors import ConfigError

LARGEST_COUNT, LARGEST_STEP = 2**20, 10**9
LARGEST_WEIGHT = 1e6  # of a term beside others of about 1: with more, float32 keeps nothing of them


def check_count(name: str, value: Any, least: int = 1, most: int = LARGEST_COUNT) -> None:
    """Raise ConfigError unless `value` is a whole number from `least` to `most`."""
    if not isinstance(value, Integral) or not least <= int(value) <= most:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")


def check_weight(name: str, value: Any, most: float = LARGEST_WEIGHT) -> None:
    """Raise ConfigError unless `value` is a number from 0 to `most`."""
    if not isinstance(value, Real) or not 0 <= float(value) <= most:
        raise ConfigError(f"{name} is {value!r}; it must be a number from 0 to {most:g}")


def check_share(name: str, value: Any) -> None:
    """Raise ConfigError unless `value` is a number from 0 to below 1."""
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a number from 0 to below 1")
