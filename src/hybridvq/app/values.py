"""What a visitor's browser sends for a control. It can be anything, so each value is looked at before it is used."""

from collections.abc import Sequence
from typing import Any

from hybridvq.errors import ConfigError


def number(name: str, value: Any, low: float, high: float) -> float:
    """A number in low..high.

    Raises:
        ConfigError: it is none, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; give a number from {low:g} to {high:g}")
    return value


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in low..high.

    Raises:
        ConfigError: it is none, or outside.
    """
    if number(name, value, low, high) != int(value):
        raise ConfigError(f"{name} is {value!r}; give a whole number from {low} to {high}")
    return int(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of `choices`.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    return str(value)
