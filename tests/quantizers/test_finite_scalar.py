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
