import math

import numpy as np
import pytest
import torch
from scipy import stats

from hybridvq import ConfigError
from hybridvq.priors import Choice
from hybridvq.priors.gains import CategoricalHead, DensityHead, build_gain_head
from hybridvq.quantizers import TokenSpace
from priors.spaces import space


def parameters(head, n=5, seed=0):
    return torch.randn(n, head.outputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["categorical", "gaussian", "mixture"])
def test_a_pmf_sums_to_one_and_is_the_log_prob(name):
    head = build_gain_head(space("levels", stages=2, levels=6), name, 3)
    for stage in (0, 1):
        numbers = parameters(head)
        pmf = head.log_pmf(numbers, stage)
        torch.testing.assert_close(pmf.exp().sum(-1), torch.ones(5))
        levels = torch.tensor([0, 5, 2, 1, 4])
        torch.testing.assert_close(head.log_prob(numbers, levels, stage), pmf.gather(1, levels[:, None])[:, 0])


@pytest.mark.parametrize("components", [1, 4])
def test_masses_of_levels_against_scipy(components):
    values = torch.tensor([[-2.0, -0.5, 0.1, 4.0]])
    head = DensityHead(TokenSpace(2, 1, "levels", values, torch.ones(2, 2)), components)
    head.set_scale(torch.tensor([0.5]), torch.tensor([2.0]))
    numbers = parameters(head, n=1)
    logits, means, log_deviations = (part.numpy().astype(float) for part in numbers[0].chunk(3))
    weights = np.exp(logits) / np.exp(logits).sum()
    edges = [-np.inf, -1.25, -0.2, 2.05, np.inf]
    cdf = stats.norm.cdf(np.array(edges)[:, None], 0.5 + 2 * means, 2 * (1e-3 + np.exp(log_deviations))) @ weights
    np.testing.assert_allclose(head.log_pmf(numbers, 0).exp()[0], np.diff(cdf), rtol=1e-4, atol=1e-5)


def test_a_density_against_scipy():
    head = DensityHead(space("float"), 3)
    head.set_scale(torch.tensor([10.0]), torch.tensor([0.25]))
    numbers, gains = parameters(head, n=1), torch.tensor([9.0, 10.0, 10.3, 11.0])
    logits, means, log_deviations = (part.numpy().astype(float) for part in numbers[0].chunk(3))
    weights = np.exp(logits) / np.exp(logits).sum()
    density = stats.norm.pdf(gains[:, None], 10 + 0.25 * means, 0.25 * (1e-3 + np.exp(log_deviations))) @ weights
    np.testing.assert_allclose(head.log_prob(numbers.expand(4, -1), gains, 0), np.log(density), rtol=1e-4)


@pytest.mark.parametrize("components", [1, 4])
def test_a_density_integrates_to_one_and_to_the_masses_of_cells(components):
    head = DensityHead(space("float"), components)
    head.set_scale(torch.tensor([3.0]), torch.tensor([0.1]))
    numbers, edges = parameters(head, n=1), torch.linspace(-7, 13, 200_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = head.log_prob(numbers.expand(len(middle), -1), middle, 0).exp() * (edges[1] - edges[0])
    assert density.sum().item() == pytest.approx(1, abs=1e-3)
    coarse = torch.tensor([-math.inf, 2.8, 3.0, 3.05, 3.3, math.inf])
    masses = head.log_prob(numbers.expand(5, -1), torch.full((5,), 3.0), 0, (coarse[:-1], coarse[1:])).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-5)
    for low, high, mass in zip(coarse[:-1], coarse[1:], masses, strict=True):
        assert density[(middle > low) & (middle < high)].sum().item() == pytest.approx(mass.item(), abs=1e-3)


@pytest.mark.parametrize("kind", ["levels", "float"])
def test_gradients_stay_finite_far_out(kind):
    head = DensityHead(space(kind), 2)
    numbers = torch.tensor([[0.0, 0.0, 900.0, -900.0, -50.0, 50.0]] * 2, requires_grad=True)
    gains = torch.tensor([0, 2]) if kind == "levels" else torch.tensor([-1e4, 1e4])
    cells = None if kind == "levels" else (gains - 0.1, gains + 0.1)
    for each in (None, cells):
        score = head.log_prob(numbers, gains, 0, each)
        score.sum().backward()
        assert score.isfinite().all()
        assert numbers.grad.isfinite().all()


def test_levels_out_of_order_or_alike_keep_a_proper_pmf():
    """A rate weight may let a level overtake its neighbor; its index stays its own."""
    values = torch.tensor([[1.0, -1.0, 1.0, 3.0]])
    head = DensityHead(TokenSpace(2, 1, "levels", values, torch.ones(2, 2)), 1)
    pmf = head.log_pmf(torch.tensor([[0.0, -5.0, -3.0]]), 0).exp()[0]
    assert pmf.sum().item() == pytest.approx(1, abs=1e-6)
    assert pmf.argmax() == 1
    assert pmf.min() > 1e-8
    draws = head.draw([torch.tensor([[0.0, 5.0, -3.0]])], 0, Choice(), torch.tensor([[0.5], [0.5]]))
    assert draws.tolist() == [3]


def test_scale_of_gains():
    head = build_gain_head(space("float", stages=2), "mixture")
    gains = torch.stack([torch.randn(4, 5, 5) * 2 + 7, torch.full((4, 5, 5), 3.0)], 1)
    head.fit(gains)
    np.testing.assert_allclose(head.mean, [gains[:, 0].mean(), 3], rtol=1e-6)
    np.testing.assert_allclose(head.deviation, [gains[:, 0].std(correction=0), 1], rtol=1e-6)
    of = space("levels")
    levels = build_gain_head(of, "gaussian")
    assert levels.mean.item() == pytest.approx(of.level_values.mean().item())
    levels.fit(torch.tensor([0, 0, 2]).view(1, 1, 1, 3))
    assert levels.mean.item() == pytest.approx(of.level_values[0, [0, 0, 2]].mean().item())


def test_the_start_is_as_wide_as_all_gains():
    for components in (1, 8):
        head = DensityHead(space("float"), components)
        z = torch.linspace(-20, 20, 100_001, dtype=torch.float64)
        density = head.log_prob(head.start().expand(len(z), -1), z, 0).exp() * (z[1] - z[0])
        assert (density * z).sum().item() == pytest.approx(0, abs=1e-4)
        assert (density * z.square()).sum().sqrt().item() == pytest.approx(1, abs=0.2)
    assert CategoricalHead(space()).start().tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["levels", "float"])
def test_temperature_zero_is_the_mean(kind):
    head = DensityHead(space(kind), 2)
    numbers = torch.tensor([[0.0, 1.0, -1.0, 0.5, 0.0, 0.0]])
    gain = head.draw([numbers], 0, Choice(temperature=0), torch.tensor([[0.1], [0.99]]))
    expected = head.mean + 0.5 * head.deviation
    if kind == "levels":
        expected = (head.level_values[0] - expected).abs().argmin(0, keepdim=True)
    assert torch.equal(gain, expected)


@pytest.mark.parametrize(
    ("kind", "name", "components", "message"),
    [
        ("float", "categorical", 1, "a categorical gain needs levels, and these gains are floats; use 'gaussian'"),
        (
            "levels",
            "gauss",
            1,
            r"no gain head named 'gauss' \(did you mean gaussian\?\); choose one of categorical",
        ),
        ("float", "mixture", 0, "components is 0"),
    ],
)
def test_heads_that_do_not_exist(kind, name, components, message):
    with pytest.raises(ConfigError, match=message):
        build_gain_head(space(kind), name, components)


def test_heads_by_default():
    assert build_gain_head(space("none"), "mixture") is None
    assert isinstance(build_gain_head(space("levels")), CategoricalHead)
    assert build_gain_head(space("float")).outputs == 24
