"""The hybrid latent: its probabilities, its three ends, and what its training draws."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import logistic

from hybridvq import ConfigError, HybridQuantizer, ShapeError
from hybridvq.quantizers import Tokens, step_of_quality
from hybridvq.quantizers.gaussian import image_generators
from hybridvq.quantizers.logistic import LogisticMixture, log_mass, logistic_bits

OPTIONS = {"groups": 2, "codebook_size": 16, "code_dim": 3, "width": 8, "aside_steps": 4, "restart_every": 3}


def number(value):
    return torch.tensor(value, dtype=torch.double)


def vectors(height=8, width=8, batch=3, dim=5):
    return 3 * torch.randn(batch, dim, height, width, generator=torch.Generator().manual_seed(1))


def quantizer(trained=True, **options):
    """One that uses its codes, and whose structure says something."""
    torch.manual_seed(0)
    made = HybridQuantizer(5, **(OPTIONS | options))
    if trained and made.structure is not None:
        torch.nn.init.normal_(made.structure.decoder[-1].weight, std=0.2)
        made.train()
        for _ in range(made.aside_steps):
            made(vectors())
    return made.eval()


@pytest.mark.parametrize("step", [0.2, 1.0, 4.0])
def test_bits_are_those_of_scipy(step):
    value, mean = torch.linspace(-30, 30, 61).double(), number(0.3)
    for log_scale in (-2.0, 0.0, 2.5):
        f = logistic(0.3, math.exp(log_scale))
        upper, lower = value.numpy() + step / 2, value.numpy() - step / 2
        # Of two values of F near 1 the difference is nothing; of those of 1 - F it is exact.
        mass = np.where(value > 0.3, f.sf(lower) - f.sf(upper), f.cdf(upper) - f.cdf(lower))
        bits = logistic_bits(value, number(step), mean, number(log_scale))
        np.testing.assert_allclose(bits, -np.log2(mass), rtol=1e-9)


def test_far_values_have_finite_bits_and_a_gradient():
    value = torch.tensor([0.0, 1e3, -1e5], requires_grad=True)
    bits = logistic_bits(value, torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0.0))
    assert bits.isfinite().all()
    slope = torch.autograd.grad(bits.sum(), value)[0]
    torch.testing.assert_close(slope, torch.tensor([0.0, 1.0, -1.0]) / math.log(2))


def test_the_masses_of_all_bins_add_to_one():
    centers = torch.arange(-4000, 4001).double() * 0.7
    logs = log_mass(centers, number(0.7), number(0.2), number(1.1))
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_the_mixture_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    mixture = LogisticMixture(2).double()
    torch.nn.init.normal_(mixture.weights)
    value, step = torch.randn(1, 2, 3, 3).double() * 4, torch.tensor(0.5).double().view(1, 1, 1, 1)
    bits = mixture.bits(value, step)
    means, scales, shares = (4 * part.detach().numpy() for part in mixture.parameters())
    for channel in range(2):
        p = np.exp(shares[channel] - logsumexp(shares[channel]))
        v = value[0, channel].numpy()
        f = sum(
            w * (logistic(m, math.exp(s)).cdf(v + 0.25) - logistic(m, math.exp(s)).cdf(v - 0.25))
            for w, m, s in zip(p, means[channel], scales[channel], strict=True)
        )
        np.testing.assert_allclose(bits[0, channel].detach().numpy(), -np.log2(f), rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 1), (5, 10)])
@torch.no_grad()
def test_tokens_are_enough(height, width):
    made, z = quantizer(rate_weight=0), vectors(height, width)
    out = made(z, 0.7)
    tokens = out.tokens
    assert tokens.codes.shape == (3, 2, math.ceil(height / 4), math.ceil(width / 4))
    assert tokens.coefficients.shape == z.shape
    assert not tokens.coefficients.is_floating_point()
    torch.testing.assert_close(made.dequantize(tokens), out.z_hat)
    assert (out.z_hat - z).abs().max() <= 0.35 + 1e-5
    mean, log_scale = made.predict(tokens)
    torch.testing.assert_close(out.z_hat, mean + 0.7 * tokens.coefficients)
    counted = logistic_bits(out.z_hat, torch.tensor(0.7), mean, log_scale).sum((1, 2, 3))
    shares = [part.bits()[:, 0] for part in made.structure.shares]
    codes = [sum(shares[g][k].item() for g in range(2) for k in image[g].flatten()) for image in tokens.codes]
    torch.testing.assert_close(out.rate.bits, counted + torch.tensor(codes))


@torch.no_grad()
def test_codes_alone_are_read_as_the_mean():
    made = quantizer()
    tokens = made(vectors()).tokens
    preview = made.dequantize(Tokens(codes=tokens.codes))
    torch.testing.assert_close(preview, made.predict(tokens)[0])


@torch.no_grad()
def test_a_step_without_bound_is_vq_on_a_coarse_grid():
    made, z = quantizer(), vectors()
    out = made(z, math.inf)
    assert not out.tokens.coefficients.any()
    assert torch.equal(out.z_hat, made.dequantize(Tokens(codes=out.tokens.codes)))
    torch.testing.assert_close(out.rate.bits, made.structure.code_bits(out.tokens.codes))
    torch.testing.assert_close(made.dequantize(out.tokens), out.z_hat)


@torch.no_grad()
def test_a_step_towards_zero_is_the_continuous_latent():
    made, z = quantizer(), vectors()
    errors = [(made(z, step).z_hat - z).abs().max().item() for step in (1.0, 0.1, 1e-2, 1e-4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


@torch.no_grad()
def test_without_groups_it_is_a_scalar_transform_codec():
    made, z = quantizer(groups=0, rate_weight=0), vectors()
    out = made(z, 0.5)
    assert out.tokens.codes is None
    assert made.codebook_size is None
    assert torch.equal(out.tokens.coefficients, (z / 0.5).round().int())
    torch.testing.assert_close(out.z_hat, (z / 0.5).round() * 0.5)
    torch.testing.assert_close(
        out.rate.bits, made.prior.bits(out.z_hat, torch.tensor(0.5)[None, None, None, None]).sum((1, 2, 3))
    )


@pytest.mark.parametrize("groups", [2, 0])
@torch.no_grad()
def test_rounding_weighs_error_and_bits(groups):
    """The cheaper of the nearest integer and the next one towards 0, by bits from the distribution functions."""
    made, z, step, weight = quantizer(groups=groups, rate_weight=0.3), vectors().double(), 0.8, 0.3
    tokens = made(z.float(), step).tokens
    mean, log_scale = (part.double().numpy() for part in made.predict(tokens)) if groups else (0.0, 0.0)
    wide = torch.full((1, 1, 1, 1), step)

    def bits(r):
        if not groups:
            return made.prior.bits(torch.from_numpy(r * step).float(), wide).double().numpy()
        edges = [(r - 0.5) * step, (r + 0.5) * step]
        return -np.log2(np.diff(logistic.cdf(edges, scale=np.exp(log_scale)), axis=0)[0])

    v = (z.numpy() - mean) / step
    nearest = np.rint(v)
    nearer = nearest - np.sign(nearest)
    dearer = (v - nearer) ** 2 - (v - nearest) ** 2 - weight * (bits(nearest) - bits(nearer))
    want, clear = np.where(dearer < 0, nearer, nearest), np.abs(dearer) > 1e-4
    found = tokens.coefficients.numpy()
    np.testing.assert_array_equal(found[clear], want[clear])
    assert (found != nearest).any()
    assert (found == nearest).any()


@torch.no_grad()
def test_each_image_may_have_a_step_of_its_own():
    made, z = quantizer(), vectors()
    steps = torch.tensor([0.3, 1.0, 2.5])
    together = made(z, steps)
    assert torch.equal(together.tokens.step, steps)
    for i, step in enumerate(steps.tolist()):
        alone = made(z[i : i + 1], step)
        torch.testing.assert_close(together.z_hat[i : i + 1], alone.z_hat)
        torch.testing.assert_close(together.rate.bits[i : i + 1], alone.rate.bits)
        assert together.rate.distortion_weight[i].item() == pytest.approx(0.0067 / step**2)
        assert together.rate.image_weight[i].item() == pytest.approx(step**0.6)


def test_training_draws_steps_and_noise_from_the_counted_step():
    made, z = quantizer(step_range=[0.25, 4.0]), vectors(batch=64)
    made.train()
    before = int(made.steps)
    out = made(z)
    assert int(made.steps) == before + 1
    logs = out.tokens.step.log2()
    assert -2 <= logs.min() < -1.5
    assert 1.5 < logs.max() <= 2
    assert abs(logs.mean()) < 0.5
    draw = next(image_generators(before, z))
    assert out.tokens.step[0].item() == pytest.approx(2 ** torch.empty(()).uniform_(-2, 2, generator=draw).item())
    made.steps.fill_(before)
    assert torch.equal(made(z).tokens.step, out.tokens.step), "the same step draws the same"
    assert not torch.equal(made(z).tokens.step, out.tokens.step)


def test_noise_gives_the_rate_and_rounding_the_decoder():
    made, z = quantizer(groups=0, rate_weight=0).train(), vectors().requires_grad_()
    steps, noise = made.draw(z)
    out = made(z)
    wide = steps[:, None, None, None]
    torch.testing.assert_close(out.z_hat, (z / wide).round() * wide)
    assert noise.abs().max() <= 0.5
    torch.testing.assert_close(out.rate.bits, made.prior.bits(z + noise * wide, wide).sum((1, 2, 3)))
    v = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(out.z_hat, z, v, retain_graph=True)[0], v)
    assert torch.autograd.grad(out.rate.bits.sum(), z)[0].abs().sum() > 0


def test_the_structure_learns_aside_and_then_takes_over():
    made, z = quantizer(trained=False).train(), vectors().requires_grad_()
    for step in range(6):
        aside = step < made.aside_steps
        assert made.uses_codes != aside
        out = made(z)
        assert (out.tokens.codes is None) == aside
        parts = [*made.structure.encoder.parameters(), *made.structure.decoder.parameters()]
        total = out.rate.bits.sum() + out.rate.aside_bits.sum() + out.losses["commitment"]
        gradients = torch.autograd.grad(total, [*parts, *made.prior.parameters()], retain_graph=True)
        assert any(g.abs().sum() for g in gradients[: len(parts)])
        assert any(g.abs().sum() for g in gradients[len(parts) :]) == aside
        shaped = torch.autograd.grad(out.rate.aside_bits.sum() + out.losses["commitment"], z, allow_unused=True)[0]
        assert (shaped is None) == aside, "what learns aside has no say in z"


def test_the_bits_aside_are_of_codes_and_coefficients():
    """Before the structure says anything, coefficients are logistic with mean 0 and scale 1."""
    made, z = quantizer(trained=False).train(), vectors()
    steps, noise = made.draw(z)
    wide, seen = steps[:, None, None, None], []
    made.structure.register_forward_hook(lambda module, inputs, guess: seen.append(guess.codes))
    out = made(z)
    shares = [part.bits()[:, 0] for part in made.structure.shares]
    codes = torch.stack([shares[group][seen[0][:, group]].sum((1, 2)) for group in range(2)]).sum(0)
    rest = logistic_bits(z + noise * wide, wide, torch.tensor(0.0), torch.tensor(0.0)).sum((1, 2, 3))
    assert (codes > 0).all()
    torch.testing.assert_close(out.rate.aside_bits, rest + codes)


def test_codes_and_shares_follow_what_is_seen():
    made = quantizer(restart_every=2)
    for codebook, shares in zip(made.structure.codebooks, made.structure.shares, strict=True):
        assert int(codebook.steps) == made.aside_steps
        assert shares.shares.sum().item() == pytest.approx(1)
    codes = made(vectors()).tokens.codes
    assert all(len(codes[:, group].unique()) > 2 for group in range(2))


def test_the_networks_keep_the_precision_around_them_in_training_alone():
    made, z, seen = quantizer(), vectors(), []
    made.structure.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for mode in (True, False):
        made.train(mode)
        with torch.autocast("cpu", torch.bfloat16):
            out = made(z.bfloat16())
        assert out.z_hat.dtype == out.rate.bits.dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]


def test_quality_is_a_step():
    steps = [step_of_quality(quality) for quality in range(1, 101)]
    assert steps == sorted(steps, reverse=True)
    assert (steps[0], steps[-1]) == (pytest.approx(4), pytest.approx(0.2))
    ratios = [b / a for a, b in pairwise(steps)]
    assert max(ratios) == pytest.approx(min(ratios))
    for quality in (0, 100.5, math.nan):
        with pytest.raises(ConfigError, match=f"quality is {quality}; it must lie between 1 and 100"):
            step_of_quality(quality)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": -1}, "groups is -1; it must be a whole number"),
        ({"code_dim": 0}, "code_dim is 0; it must be a whole number"),
        ({"codebook_size": 0}, "codebook_size is 0"),
        ({"beta": -1}, "beta is -1; it must be a number"),
        ({"balance": math.inf}, "balance is inf"),
        ({"aside_steps": math.nan}, "aside_steps is nan"),
        ({"step_range": [1.0]}, r"step_range is \[1.0\]; give the smallest step and the largest"),
        ({"step_range": [2.0, 1.0]}, "step_range is"),
        ({"step": 0}, "step is 0; it must be positive"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        HybridQuantizer(5, **(OPTIONS | options))


def test_steps_and_tokens_that_cannot_be_used():
    made, z = quantizer(), vectors()
    for step in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match=f"step is {step}; it must be positive"):
            made(z, step)
    with pytest.raises(ShapeError, match=r"step has shape \(2,\); give one number, or one for each of 3 images"):
        made(z, torch.ones(2))
    with pytest.raises(ShapeError, match="this quantizer takes"):
        made(z[:, :4])
    tokens = made(z).tokens
    for change, message in (
        ({"codes": None}, "these tokens hold no codes"),
        ({"step": None}, "these tokens hold no step"),
        ({"step": torch.zeros(3)}, "all positive"),
        ({"step": torch.ones(2)}, "one for each of 3 images"),
        ({"codes": tokens.codes + 16}, "they go from 0 to 15"),
        ({"codes": tokens.codes[:, :1]}, r"shape \(3, 1, 2, 2\); they must be \(batch, 2"),
        ({"codes": tokens.codes[..., :1]}, "are of other images or positions"),
        ({"coefficients": tokens.coefficients[:, :4]}, r"coefficients have shape \(3, 4"),
        ({"coefficients": tokens.coefficients.float()}, "coefficients are torch.float32; they must be whole"),
    ):
        with pytest.raises((ConfigError, ShapeError), match=message):
            made.dequantize(replace(tokens, **change))
    with pytest.raises(ConfigError, match="these tokens hold codes, and this model's do not"):
        quantizer(groups=0).dequantize(Tokens(codes=tokens.codes))
