"""FSQ against that of vector-quantize-pytorch, which the published tables were made with."""

import pytest
import torch
from vector_quantize_pytorch import FSQ

from hybridvq import ConfigError, FiniteScalarQuantizer, Tokens

GRIDS = [[8, 5, 5, 5], [7, 4], [3, 6, 5]]


def pair(grid, dim):
    """Both, started by the same random numbers."""
    torch.manual_seed(0)
    ours = FiniteScalarQuantizer(dim, grid)
    torch.manual_seed(0)
    return ours, FSQ(levels=grid, dim=dim, channel_first=True)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dim", [None, 9])
def test_it_is_the_one_of_the_published_tables(grid, dim):
    ours, other = pair(grid, dim or len(grid))
    for mine, theirs in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.flatten(), theirs.flatten())
    z = 2 * torch.randn(2, ours.dim, 6, 6)
    z.requires_grad_()
    made, (z_hat, codes) = ours(z), other(z)
    assert torch.equal(made.tokens.codes[:, 0], codes.long())
    torch.testing.assert_close(made.z_hat, z_hat)
    v = torch.randn_like(z_hat)
    torch.testing.assert_close(
        torch.autograd.grad(made.z_hat, z, v)[0], torch.autograd.grad(z_hat, z, v)[0], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(ours.dequantize(made.tokens), other.indices_to_codes(codes))


def test_every_code_is_a_vector_that_gets_itself():
    fsq = FiniteScalarQuantizer(3, [3, 6, 5]).eval()
    assert fsq.codebook_size == 90
    codes = torch.arange(90).view(1, 1, 9, 10)
    values = fsq.read(Tokens(codes=codes))
    assert len(values.flatten(2)[0].T.unique(dim=0)) == 90
    assert torch.equal(fsq.quantize(values).tokens.codes, codes)
    assert values.abs().max() == 1


def test_the_error_is_that_of_the_rounding():
    fsq, z = FiniteScalarQuantizer(2, [5, 5]).eval(), torch.randn(2, 2, 4, 4)
    bounded = fsq.in_code_space(z)
    assert fsq(z).error == pytest.approx((bounded - fsq(z).z_hat).square().mean().item())
    assert fsq(z).losses == {}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], r"grid is \[\]"),
        ([8, 2], r"grid\[1\] is 2"),
        ([8, 5.0], r"grid\[1\] is 5.0"),
        ([99] * 4, "product of grid"),
    ],
)
def test_grids_that_cannot_be(grid, message):
    with pytest.raises(ConfigError, match=message):
        FiniteScalarQuantizer(6, grid)


def test_a_rate_weight_adds_the_bits_of_a_running_share():
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(2, [5, 4], rate_weight=0.05, decay=0.9)
    plain, shares = FiniteScalarQuantizer(2, [5, 4]), torch.full((20,), 1 / 20)
    for _ in range(20):
        z = torch.randn(2, 2, 5, 5)
        codes = quantizer(z).tokens.codes
        bounded = plain.in_code_space(z).movedim(1, -1).reshape(-1, 2)
        costs = torch.cdist(bounded, plain.vectors) ** 2 - 0.05 * shares.clamp(min=1e-3 / 20).log2()
        assert (costs.gather(1, codes.reshape(-1, 1))[:, 0] <= costs.min(1).values + 1e-5).all()
        shares = 0.9 * shares + 0.1 * torch.bincount(codes.flatten(), minlength=20) / 50
        assert quantizer.shares.shares[:, 0].allclose(shares, atol=1e-6)
    assert not torch.equal(quantizer.eval()(z).tokens.codes, plain.eval()(z).tokens.codes)
    assert torch.equal(quantizer.dequantize(quantizer(z).tokens), quantizer(z).z_hat)


@pytest.mark.parametrize(
    ("options", "message"), [({"rate_weight": -1}, "rate_weight is -1"), ({"decay": 2}, "decay is 2")]
)
def test_weights_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        FiniteScalarQuantizer(2, [5, 4], **options)
