import numpy as np
import pytest
import reference
import torch

from hybridvq import ProjectedQuantizer
from hybridvq.quantizers import Tokens


def make(z_seed=0, dim=5, size=7, beta=1.0):
    generator = torch.Generator().manual_seed(z_seed)
    quantizer = ProjectedQuantizer(dim, codebook_size=size, beta=beta, init="uniform", restart_every=0).eval()
    with torch.no_grad():
        quantizer.codebook.weight.copy_(torch.randn(size, dim, generator=generator))
    return quantizer, torch.randn(2, dim, 3, 3, generator=generator)


def test_projection_and_losses_match_the_formulas():
    quantizer, z = make(beta=0.5)
    out = quantizer(z)
    codes = quantizer.codebook.weight.detach().double().numpy()
    z_rows = reference.rows(z)
    chosen = codes[reference.nearest(z_rows, codes)]
    projected = np.stack([reference.project(row, e) for row, e in zip(z_rows, chosen, strict=True)])
    np.testing.assert_allclose(reference.rows(out.z_hat), projected, rtol=1e-5)
    codebook, commitment = reference.vq_losses(z_rows, chosen, beta=0.5)
    assert out.losses["codebook"].item() == pytest.approx(codebook, rel=1e-5)
    assert out.losses["commitment"].item() == pytest.approx(commitment, rel=1e-5)
    assert out.losses["projection"].item() == pytest.approx(np.mean((projected - chosen) ** 2), rel=1e-5)


def test_the_residual_is_orthogonal_to_the_code():
    quantizer, z = make()
    out = quantizer(z)
    e = quantizer.embed(out.tokens)
    torch.testing.assert_close(((z - out.z_hat) * e).sum(1), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)


def test_gradient_by_hand():
    """z = (3, 1), e = (2, 0): a = 3/2, and J^T v = <e,v> (z + (1 - 2a) e) / <e,e> + a v."""
    quantizer = ProjectedQuantizer(2, codebook_size=1, init="uniform", restart_every=0)
    with torch.no_grad():
        quantizer.codebook.weight.copy_(torch.tensor([[2.0, 0.0]]))
    z = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1).requires_grad_()
    out = quantizer(z)
    assert out.z_hat.flatten().tolist() == [3.0, 0.0]
    # v = (1, 0): 2 ((3, 1) - 2 (2, 0)) / 4 + 1.5 (1, 0) = (-0.5, 0.5) + (1.5, 0) = (1, 0.5)
    (grad,) = torch.autograd.grad(out.z_hat, z, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), retain_graph=True)
    assert grad.flatten().tolist() == pytest.approx([1.0, 0.5])
    # v = (0, 1): the first term vanishes, 1.5 (0, 1); projecting onto a fixed code would give (0, 0)
    (grad,) = torch.autograd.grad(out.z_hat, z, torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
    assert grad.flatten().tolist() == pytest.approx([0.0, 1.5])


def test_gradient_matches_the_documented_formula_and_finite_differences():
    quantizer, z = make(3)
    e = quantizer.embed(quantizer(z).tokens).detach().double()
    z = z.double()

    def published(point):
        q = e + (point - z)  # the straight-through code: value e at z, derivative I
        return (point * q).sum(1, keepdim=True) / (q * q).sum(1, keepdim=True) * q

    v = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-6
    numeric = torch.zeros_like(z)
    for i in range(z.numel()):
        delta = torch.zeros_like(z).flatten()
        delta[i] = step
        delta = delta.view_as(z)
        numeric.view(-1)[i] = ((published(z + delta) - published(z - delta)) * v).sum() / (2 * step)
    ev = (e * v).sum(1, keepdim=True)
    ee = (e * e).sum(1, keepdim=True)
    a = (z * e).sum(1, keepdim=True) / ee
    formula = ev * (z + (1 - 2 * a) * e) / ee + a * v
    torch.testing.assert_close(formula, numeric, atol=1e-7, rtol=1e-5)
    point = z.float().requires_grad_()
    (grad,) = torch.autograd.grad(quantizer(point).z_hat, point, v.float())
    torch.testing.assert_close(grad.double(), formula, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-8, 1e-4])
def test_codes_near_zero_do_not_blow_up(length):
    quantizer, z = make()
    with torch.no_grad():
        quantizer.codebook.weight.mul_(length)
    z.requires_grad_()
    out = quantizer(z)
    assert (out.z_hat.norm(dim=1) <= z.norm(dim=1) * (1 + 1e-5)).all()
    (out.z_hat.sum() + sum(out.losses.values())).backward()
    assert torch.isfinite(z.grad).all()


def test_tokens_are_enough_and_say_what_they_cost():
    quantizer, z = make()
    out = quantizer(z)
    again = quantizer.dequantize(Tokens(codes=out.tokens.codes.clone(), gains=out.tokens.gains.clone()))
    torch.testing.assert_close(again, out.z_hat)
    assert out.tokens.has_floats
    assert out.tokens.float_bits() == 32
