"""Bits on a grid, by scipy and by hand: the published bits of float gains rest on it."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from hybridvq import ConfigError, StaticPrior
from hybridvq.priors import GainGrid, bits_per_position
from hybridvq.quantizers import Tokens
from priors.spaces import prior, space, tokens

GRID = GainGrid(-1.0, 2.0, bits=2)  # -1, 0, 1, 2


def floats(values):
    gains = torch.tensor(values).view(1, 1, 1, -1)
    return Tokens(codes=torch.zeros_like(gains, dtype=torch.long), gains=gains)


def test_gains_go_to_the_nearest_value_and_its_cell_ends_half_way_to_the_next():
    rounded, (lower, upper) = GRID.round(floats([-7.0, -0.51, -0.49, 0.2, 1.4, 1.6, 50.0]))
    assert rounded.gains.flatten().tolist() == [-1, -1, 0, 0, 1, 2, 2]
    assert lower.flatten().tolist() == [-math.inf, -math.inf, -0.5, -0.5, 0.5, 1.5, 1.5]
    assert upper.flatten().tolist() == [-0.5, -0.5, 0.5, 0.5, 1.5, math.inf, math.inf]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_cells_of_a_grid_share_out_all_mass(bits):
    grid, values = GainGrid(-2.0, 4.0, bits), np.linspace(-2, 4, 2**bits)
    _, (lower, upper) = grid.round(floats(values.tolist()))
    edges = (values[1:] + values[:-1]) / 2
    np.testing.assert_allclose(lower.flatten(), [-np.inf, *edges], atol=1e-6)
    np.testing.assert_allclose(upper.flatten(), [*edges, np.inf], atol=1e-6)


def test_bits_of_rounded_gains_are_those_of_the_mass_of_their_cells():
    of = space("float")
    made, given = StaticPrior(of, (3, 4)), tokens(of, 8)
    made.fit([given])
    mean, deviation = made.gain_head.mean.item(), made.gain_head.deviation.item()
    edges = np.array([-np.inf, -0.5, 0.5, 1.5, np.inf])
    expected = 0.0
    for k, gain in zip(given.codes.flatten().tolist(), given.gains.flatten().tolist(), strict=True):
        _, mu, log_sigma = made.gain_table[0, k].double().numpy()
        mass = np.diff(stats.norm.cdf(edges, mean + deviation * mu, deviation * (1e-3 + np.exp(log_sigma))))
        expected -= np.log2(mass[np.abs(np.array([-1, 0, 1, 2]) - gain).argmin()])
    halves = [(Tokens(codes=given.codes[part], gains=given.gains[part]), None) for part in (slice(3), slice(3, None))]
    found = bits_per_position(made, halves, GRID)
    assert found.gain == pytest.approx(expected / given.gains.numel(), rel=1e-4)
    codes = -made.score(given).code.double().sum().item() / math.log(2) / given.codes.numel()
    assert found.code == pytest.approx(codes, rel=1e-6)
    assert found.total == found.code + found.gain


def test_levels_are_on_no_grid():
    with pytest.raises(ConfigError, match="a grid is for float gains"):
        bits_per_position(prior("transformer", space()), [(tokens(space()), None)], GRID)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 0), "bits is 0"),
        ((0.0, 1.0, 40), "bits is 40"),
        ((1.0, 1.0, 4), "from a low to a higher value, not from 1.0 to 1.0"),
        ((math.nan, 1.0, 4), "not from nan"),
        ((0.0, math.inf, 4), "to inf"),
    ],
)
def test_grids_that_are_none(arguments, message):
    with pytest.raises(ConfigError, match=message):
        GainGrid(*arguments)
