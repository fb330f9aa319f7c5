"""Models at equal bits, between those of their rivals."""

import math

import pytest
from experiments.equal_bits import Bounds, at, hull, ratio_text


def curve(bits):
    """A convex curve in log MSE."""
    return 0.1 * math.exp(-0.25 * bits + 0.004 * bits**2)


def test_the_hull_leaves_out_what_is_worse():
    good = [(bits, curve(bits)) for bits in (6.0, 8.0, 10.0, 13.0)]
    assert hull([*good, (9.0, 1.02 * curve(9.0)), (14.0, 1.1 * curve(13.0)), (10.0, 2.0)]) == good
    assert hull([(9.0, 0.5 * curve(9.0)), *good]) == [good[0], (9.0, 0.5 * curve(9.0))] + [
        p for p in good if p[1] < 0.5 * curve(9.0)
    ]


def test_a_convex_curve_lies_within_the_bounds():
    points = [(bits, curve(bits)) for bits in (6.0, 8.0, 10.0, 13.0)]
    for bits in (6.0, 6.5, 8.0, 9.0, 9.9, 11.0, 12.0, 13.0):
        low, high = at(points, bits)
        assert low <= curve(bits) * (1 + 1e-12)
        assert curve(bits) <= high * (1 + 1e-12)
    assert at(points, 5.9) is None
    assert at(points, 13.1) is None
    assert at(points[:2], 7.0).low is None  # nothing beside it


def test_on_a_member_both_bounds_are_its_error():
    points = [(bits, curve(bits)) for bits in (6.0, 8.0, 10.0, 13.0)]
    assert at(points, 8.0) == pytest.approx((curve(8.0), curve(8.0)))


def test_ratios_are_ranges():
    assert ratio_text(1.0, None) == "–"
    assert ratio_text(1.0, Bounds(None, 2.0)) == "0.50 or more"
    assert ratio_text(1.0, Bounds(1.6, 2.0)) == "0.50 to 0.62"
    assert ratio_text(1.0, Bounds(1.999, 2.0)) == "0.50"
