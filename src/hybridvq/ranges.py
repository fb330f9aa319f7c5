"""The numbers that settings may be: stated beside each setting, checked where its value comes in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from hybridvq.errors import ConfigError, did_you_mean

LARGEST_COUNT, LARGEST_STEP = 2**20, 10**9
LARGEST_WEIGHT = 1e6  # of a term beside others of about 1: with more, float32 keeps nothing of them


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be: from `low` to `high`, whole ones or any; `positive` leaves out 0."""

    low: float
    high: float
    whole: bool = True
    positive: bool = False

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError, which names the key, unless the value is one of these numbers."""
        kind: Any = Integral if self.whole else Real
        if isinstance(value, bool) or not isinstance(value, kind) or value != value:
            need = f"a {'whole ' * self.whole}number"
        elif self.positive and not value > 0:
            need = "positive"
        elif value < self.low:
            need = f"at least {self.low:,}"
        elif value > self.high:
            need = f"at most {self.high:,}"
        else:
            return
        raise ConfigError(f"{key} is {value!r}; it must be {need}")


COUNT, SHARE, SEED = Range(1, 10**9), Range(0, 1, whole=False), Range(0, 2**32 - 1)
SIZE = Range(1, 2**14)


def number(default: float | None, limits: Range) -> Any:
    """A field of a dataclass whose value `check_numbers` compares with the limits; None only where that is default."""
    return field(default=default, metadata={"limits": limits})


def check_numbers(settings: Any, prefix: str = "") -> None:
    """Raise ConfigError unless every `number` among the fields of a dataclass is within its limits."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if "limits" in f.metadata and not (value is None and f.default is None):
            f.metadata["limits"].check(prefix + f.name, value)


def check_options(what: str, options: Iterable[str], takes: Sequence[str]) -> None:
    """Raise ConfigError, which says what is taken, if there is another option."""
    for key in options:
        if key not in takes:
            near = did_you_mean(key, takes)
            raise ConfigError(f"{what} has no option {key!r}{near}; it takes {', '.join(takes) or 'no options'}")


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
