"""Read result.json and gather the runs of one recipe, which differ only in their seed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridvq.documents import read_json
from hybridvq.errors import ConfigError, HybridVQError
from hybridvq.printing import printable

SCHEMA = 1
REFERENCE = "continuous reference"
_REQUIRED = ("recipe", "title", "group", "description")


@dataclass(frozen=True)
class Stat:
    """One quantity over the seeds of a recipe: mean and sample standard deviation of its finite values.

    `mean` is NaN without a finite value, `sd` is NaN with fewer than two.
    """

    mean: float
    sd: float
    count: int
    seeds: int

    @classmethod
    def of(cls, values: list[Any]) -> "Stat":
        finite = [number for number in map(as_number, values) if math.isfinite(number)]
        mean = float(np.mean(finite)) if finite else math.nan
        sd = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
        return cls(mean, sd, len(finite), len(values))

    @property
    def complete(self) -> bool:
        """Whether every seed has a value: the mean of the runs that survived must not win a comparison."""
        return self.count == self.seeds > 0


@dataclass(frozen=True)
class RecipeRuns:
    """The runs of one recipe, first seed first."""

    name: str
    title: str
    group: str
    description: str
    runs: tuple[dict[str, Any], ...]

    def stat(self, key: str) -> Stat:
        """`key` of result.json over the seeds."""
        return Stat.of([run.get(key) for run in self.runs])

    @property
    def gains(self) -> list[dict[str, Any]]:
        """The `gains` entry of every run that has one."""
        return [run["gains"] for run in self.runs if isinstance(run.get("gains"), dict)]

    def rounded(self) -> dict[int, tuple[Stat, Stat]]:
        """Test MSE and bits per position by the bits the coefficient is rounded to, most bits first."""
        entries: dict[int, list[dict[str, Any]]] = {}
        for gains in self.gains:
            for entry in gains.get("rounded") or []:
                entries.setdefault(int(entry["bits"]), []).append(entry)
        return {
            bits: (
                Stat.of([entry.get("test_mse") for entry in same]),
                Stat.of([entry.get("bits_per_position") for entry in same]),
            )
            for bits, same in sorted(entries.items(), reverse=True)
        }


def width_text(bits: int) -> str:
    """What a coefficient is rounded to, such as 4 bits; to none where it is set to 1."""
    return f"{bits} bit{'s' if bits > 1 else ''}" if bits else "set to 1"


def as_number(value: Any) -> float:
    """`value` as a float; NaN if it is null, text or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def read_result(folder: Path) -> dict[str, Any]:
    """The contents of folder/result.json.

    Raises:
        ConfigError: the file is missing, is not JSON, or is not a result of this version.
    """
    path = Path(folder) / "result.json"
    try:
        result = read_json(path)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; run `hybridvq compare` first.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); run `hybridvq compare` again.") from error
    gather(result, str(path))
    return result


@contextmanager
def drawing(source: Path | str) -> Iterator[None]:
    """Turn whatever breaks while a result is drawn into a sentence: its values may be of any type.

    Raises:
        ConfigError: the result of `source` cannot be drawn.
    """
    try:
        yield
    except (HybridVQError, OSError):
        raise
    except Exception as error:
        raise ConfigError(
            f"{source} is not a result that can be drawn ({type(error).__name__}); run `hybridvq compare` again"
        ) from error


def gather(result: dict[str, Any], source: str = "the result") -> list[RecipeRuns]:
    """The recipes of a result, in the order of their first run.

    Raises:
        ConfigError: `result` is not of schema 1 or has no usable runs; the message names `source`.
    """
    again = "run `hybridvq compare` again."
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise ConfigError(f"{source} is not a comparison of schema {SCHEMA}; {again}")
    runs = result.get("runs")
    if not isinstance(runs, list) or not runs:
        raise ConfigError(f"{source} has no runs; {again}")
    together: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        missing = [key for key in _REQUIRED if not isinstance(run, dict) or not isinstance(run.get(key), str)]
        if missing:
            raise ConfigError(f"{source} has a run without {', '.join(missing)}; {again}")
        together.setdefault(run["recipe"], []).append(run)
    return [
        RecipeRuns(printable(name), printable(same[0]["title"]), same[0]["group"], same[0]["description"], tuple(same))
        for name, same in together.items()
    ]


def by_group(recipes: list[RecipeRuns]) -> dict[str, list[RecipeRuns]]:
    """Recipes by their group, both in order of appearance, the continuous reference last."""
    groups: dict[str, list[RecipeRuns]] = {}
    for recipe in sorted(recipes, key=lambda recipe: recipe.group == REFERENCE):
        groups.setdefault(recipe.group, []).append(recipe)
    return groups
