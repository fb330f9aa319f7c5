"""Curves over the seeds of a recipe: a mean and the band between its lowest and highest run."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridvq.report.result import RecipeRuns, as_number

Array = NDArray[np.float64]

# A training curve is averaged over this share of its points, and drawn with at most _POINTS of them.
SMOOTHING = 1 / 60
_POINTS = 400


@dataclass(frozen=True)
class Band:
    """Mean, lowest and highest value over seeds at each x; NaN where no seed has one."""

    x: Array
    mean: Array
    low: Array
    high: Array


def curve_band(recipe: RecipeRuns, step_key: str, value_key: str, smooth: bool = False) -> Band | None:
    """One curve of a recipe at the steps that all its seeds share; None if there is none."""
    curves = [_curve(run.get("curve") or {}, step_key, value_key) for run in recipe.runs]
    curves = [(x, smooth_values(y) if smooth else y) for x, y in curves if x.size]
    if not curves:
        return None
    shared: Array = reduce(np.intersect1d, [x for x, _ in curves])
    if not shared.size:
        return None
    return thin(_band(shared, [y[np.isin(x, shared)] for x, y in curves]))


def usage_band(recipe: RecipeRuns) -> Band | None:
    """Share of all positions that take the code of each rank, most used first; x is the rank, from 1."""
    shares = [_ranked(run["usage"]) for run in recipe.runs if run.get("usage")]
    shares = [share for share in shares if share.size == shares[0].size and share.size]
    if not shares:
        return None
    return _band(np.arange(1.0, shares[0].size + 1), shares)


def smooth_values(values: Array) -> Array:
    """Centered moving average over SMOOTHING of the points; the window shrinks at both ends and skips NaN."""
    window = int(values.size * SMOOTHING) | 1
    kernel = np.ones(min(window, values.size))
    valid = np.isfinite(values)
    total = np.convolve(np.where(valid, values, 0.0), kernel, mode="same")
    count = np.convolve(valid.astype(float), kernel, mode="same")
    return np.where(valid, total / np.maximum(count, 1.0), np.nan)


def thin(band: Band) -> Band:
    """At most _POINTS points of a band, both ends kept."""
    if band.x.size <= _POINTS:
        return band
    keep = np.unique(np.linspace(0, band.x.size - 1, _POINTS).round().astype(int))
    return Band(band.x[keep], band.mean[keep], band.low[keep], band.high[keep])


def _curve(curve: dict[str, Any], step_key: str, value_key: str) -> tuple[Array, Array]:
    steps = np.array([as_number(value) for value in curve.get(step_key) or []], dtype=float)
    values = np.array([as_number(value) for value in curve.get(value_key) or []], dtype=float)
    length = min(steps.size, values.size)
    # A resumed run may have logged a step twice.
    steps, first = np.unique(steps[:length], return_index=True)
    return steps, values[first]


def _ranked(usage: list[int]) -> Array:
    """Counts as shares of their sum, in descending order; NaN for unused codes, which have no logarithm."""
    counts = np.sort(np.asarray(usage, dtype=float))[::-1]
    return np.where(counts > 0, counts / max(float(counts.sum()), 1.0), np.nan)


def _band(x: Array, rows: list[Array]) -> Band:
    values = np.ma.masked_invalid(np.stack(rows))
    mean, low, high = (np.ma.filled(reduced, np.nan) for reduced in (values.mean(0), values.min(0), values.max(0)))
    return Band(x, mean, low, high)
