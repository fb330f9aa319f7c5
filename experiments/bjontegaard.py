"""The Bjøntegaard delta rate: how many more bits one codec takes than another for the same quality, on average."""

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

Curve = Sequence[tuple[float, float]]  # (rate, quality), in any order
LEAST_OVERLAP = 2.0  # decibels; over fewer, the mean says more of where the curves happen to end


def bd_rate(anchor: Curve, other: Curve, rates: tuple[float, float] | None = None) -> float | None:
    r"""The mean difference of `other` from `anchor`, in percent of the rate; below 0 it takes fewer bits.

        100 (exp(1 / (b - a) int_a^b log R_other(q) - log R_anchor(q) dq) - 1)

    log R is interpolated over quality by monotone piecewise cubics. The range a..b is the qualities that both curves
    reach, and with `rates` those that both reach at such rates; None where these span less than LEAST_OVERLAP decibels.

    Sources: Bjøntegaard 2001, VCEG-M33, with one cubic a curve; piecewise since JVET-H0030 and in ITU-T HSTP-VID-WPOM
    (2020).
    """
    curves = [curve_of(anchor), curve_of(other)]
    low, high = max(q[0] for q, _ in curves), min(q[-1] for q, _ in curves)
    if rates is not None:
        bounds = [quality_at(*curve, rates) for curve in curves]
        low, high = max(low, *(a for a, _ in bounds)), min(high, *(b for _, b in bounds))
    if high - low < LEAST_OVERLAP:
        return None
    areas = [float(PchipInterpolator(q, log_rate).integrate(low, high)) for q, log_rate in curves]
    return 100 * (float(np.exp((areas[1] - areas[0]) / (high - low))) - 1)


def curve_of(points: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Quality, ascending, and log rate; without points that another one of the curve matches with fewer bits.

    Raises:
        ValueError: fewer than two are left.
    """
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    if len(kept) < 2:
        raise ValueError("a curve needs two points at least")
    rate, quality = np.array(kept).T
    return quality, np.log(rate)


def quality_at(quality: np.ndarray, log_rate: np.ndarray, rates: tuple[float, float]) -> tuple[float, float]:
    """The qualities of a curve at two rates, or at its ends where it does not reach them."""
    bounds = np.clip(np.log(rates), log_rate[0], log_rate[-1])
    low, high = PchipInterpolator(log_rate, quality)(bounds)
    return float(low), float(high)
