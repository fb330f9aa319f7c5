"""The numbers that settings may be: stated beside each setting, checked where its value comes in."""

from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from hybridvq.errors import ConfigError


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
