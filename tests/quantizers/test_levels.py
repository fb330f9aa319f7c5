import numpy as np
import pytest
import torch

from hybridvq.quantizers.levels import GainLevels, PairShares


def test_levels_converge_to_lloyds_quantizer():
    gains = torch.randn(20000, generator=torch.Generator().manual_seed(0)).double()
    levels = GainLevels(8).double().train()
    for _ in range(1500):
        levels.assign(gains)
    values = np.quantile(gains.numpy(), (np.arange(8) + 0.5) / 8)
    for _ in range(3000):
        cell = np.searchsorted((values[1:] + values[:-1]) / 2, gains.numpy())
        values = np.array([gains.numpy()[cell == i].mean() for i in range(8)])
    error = np.mean((gains.numpy() - levels.assign(gains)[1].numpy()) ** 2)
    best = np.mean((gains.numpy() - values[np.abs(gains.numpy()[:, None] - values).argmin(1)]) ** 2)
    assert error < 1.02 * best
    assert best == pytest.approx(0.0345, rel=0.05)  # Max 1960, the 8-level quantizer of a unit Gaussian


def test_levels_follow_a_range_that_shrinks():
    levels = GainLevels(8).train()
    generator = torch.Generator().manual_seed(0)
    levels.assign(10 * torch.randn(4000, generator=generator))
    for _ in range(1500):
        levels.assign(torch.randn(4000, generator=generator))
    gains = torch.randn(4000, generator=generator)
    chosen, values = levels.eval().assign(gains)
    assert len(chosen.unique()) == 8
    assert torch.equal(levels.values, levels.values.sort().values)
    assert (gains - values).square().mean() < 0.06


def test_a_level_that_none_chooses_stays_where_it_is():
    levels = GainLevels(3, decay=0.5)
    levels.values.copy_(torch.tensor([0.0, 1.0, 5.0]))
    levels.sums.copy_(levels.values)
    gains = torch.tensor([0.0, 1.0]).repeat(10)
    for _ in range(300):
        levels.observe(gains, (gains > 0.5).long())
    torch.testing.assert_close(levels.values, torch.tensor([0.0, 1.0, 5.0]))


def test_levels_that_overtake_are_sorted_with_their_counts():
    levels = GainLevels(3, decay=0.0)
    order = levels.observe(torch.tensor([5.0, 5.0, 1.0, 9.0, 9.0, 9.0]), torch.tensor([0, 0, 1, 2, 2, 2]))
    assert order.tolist() == [1, 0, 2]
    assert levels.values.tolist() == [1, 5, 9]
    assert levels.counts.tolist() == [1, 2, 3]
    assert levels.sums.tolist() == [1, 10, 27]
    pairs = PairShares(1, 3)
    pairs.shares.copy_(torch.tensor([[0.2, 0.1, 0.7]]))
    pairs.reorder(order)
    torch.testing.assert_close(pairs.shares, torch.tensor([[0.1, 0.2, 0.7]]))


def test_shares_follow_the_pairs_and_cost_what_a_coder_would_spend():
    pairs = PairShares(2, 4, decay=0.5)
    codes, levels = torch.tensor([0, 0, 0, 1]), torch.tensor([2, 2, 3, 0])
    for _ in range(60):
        pairs.observe(codes, levels)
    expected = torch.tensor([[0.0, 0.0, 0.5, 0.25], [0.25, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairs.shares, expected)
    bits = pairs.bits()
    torch.testing.assert_close(bits[expected > 0], torch.tensor([1.0, 2.0, 2.0]))
    assert bits[expected == 0].tolist() == pytest.approx([np.log2(8 * 1000)] * 5)
    pairs.restart(torch.tensor([False, True]))
    torch.testing.assert_close(pairs.shares[1], torch.full((4,), 1 / 8))
