"""Rivals at equal bits: what a family of models reaches at bits between those of two of its members."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Point = tuple[float, float]
"""Bits per position and test MSE."""


class Bounds(NamedTuple):
    """Where a family's error lies: at most on the chord between two members, at least on the chords beside it."""

    low: float | None
    high: float


def hull(points: Sequence[Point]) -> list[Point]:
    """The points of the lower convex hull of log MSE over bits, ascending; none has more bits and more error."""
    kept: list[Point] = []
    for point in sorted(points):
        if kept and point[1] >= kept[-1][1]:
            continue
        while len(kept) > 1 and extended(kept[-2], point, kept[-1][0]) <= kept[-1][1]:
            kept.pop()
        kept.append(point)
    return kept


def at(curve: Sequence[Point], bits: float) -> Bounds | None:
    """What the hull `curve` reaches at `bits`; None outside of it.

    If the curve that more members would draw is convex in log MSE, as rate-distortion curves are, it lies below the
    chord and above the chords on both sides, extended.
    """
    for i, (a, b) in enumerate(pairwise(curve)):
        if a[0] <= bits <= b[0]:
            beside = [curve[i - 1 : i + 1]] if i else []
            beside += [curve[i + 1 : i + 3]] if i + 2 < len(curve) else []
            low = [extended(first, second, bits) for first, second in beside]
            return Bounds(max(low) if low else None, extended(a, b, bits))
    return None


def extended(a: Point, b: Point, bits: float) -> float:
    """The MSE at `bits` on the line through two points, straight in log MSE."""
    share = (bits - a[0]) / (b[0] - a[0])
    return math.exp((1 - share) * math.log(a[1]) + share * math.log(b[1]))


def ratio_text(mse: float, bounds: Bounds | None) -> str:
    """`mse` over what the family reaches, as a range where both of its bounds are known."""
    if bounds is None:
        return "–"
    low, high = f"{mse / bounds.high:.2f}", None if bounds.low is None else f"{mse / bounds.low:.2f}"
    return f"{low} or more" if high is None else low if low == high else f"{low} to {high}"
