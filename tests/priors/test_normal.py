import mpmath
import pytest
import torch

from hybridvq.priors.normal import log_normal_mass

EDGES = [
    (-1.0, 2.0), (-9.0, 0.001), (0.0, 0.5), (0.0, 1e-6), (-1e-6, 1e-6), (0.3, 0.3001), (1.0, 1.019), (1.0, 1.021),
    (2.0, 8.0), (-4.01, -4.0), (7.0, 7.5), (12.0, 12.01), (12.0, 90.0), (-30.0, -29.0), (100.0, 100.015),
    (100.0, 101.0), (1000.0, 1000.01), (-1e7, 0.2), (-1e7, 1e7), (-1e7, -3.0), (5.0, 1e7),
]  # fmt: skip


def exact(lower, upper):
    """log mass and its two derivatives, with 60 digits in float32's own edges."""
    with mpmath.workdps(60):
        a, b = mpmath.mpf(lower), mpmath.mpf(upper)
        if b > 0 and a > 0:
            mass = (mpmath.erfc(a / mpmath.sqrt(2)) - mpmath.erfc(b / mpmath.sqrt(2))) / 2
        else:
            mass = (mpmath.erfc(-b / mpmath.sqrt(2)) - mpmath.erfc(-a / mpmath.sqrt(2))) / 2
        return float(mpmath.log(mass)), float(-mpmath.npdf(a) / mass), float(mpmath.npdf(b) / mass)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 2e-5), (torch.float64, 4e-5)])
@pytest.mark.parametrize("edges", EDGES, ids=str)
def test_masses_and_gradients(edges, dtype, digits):
    lower, upper = (torch.tensor(edge, dtype=dtype, requires_grad=True) for edge in edges)
    mass = log_normal_mass(lower, upper)
    mass.backward()
    value, to_lower, to_upper = exact(lower.item(), upper.item())
    assert mass.item() == pytest.approx(value, rel=digits, abs=digits)
    scale = 1e-5 * max(1, abs(to_lower), abs(to_upper))
    assert lower.grad.item() == pytest.approx(to_lower, rel=3e-3, abs=scale)
    assert upper.grad.item() == pytest.approx(to_upper, rel=3e-3, abs=scale)


def test_masses_of_a_partition_sum_to_one():
    edges = torch.cat([torch.tensor([-1e7]), torch.linspace(-6, 6, 4001), torch.tensor([1e7])])
    assert log_normal_mass(edges[:-1], edges[1:]).double().exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_an_empty_interval_is_finite():
    edge = torch.tensor([0.0, 1.0, -50.0], requires_grad=True)
    mass = log_normal_mass(edge, edge)
    mass.sum().backward()
    assert mass.isfinite().all()
    assert edge.grad.isfinite().all()
    assert (mass < -60).all()
