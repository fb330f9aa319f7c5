"""What can be done with tokens and with a quantizer's result."""

import pytest
import torch
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from hybridvq import ConfigError, GainShapeQuantizer, Quantized, ShapeError, Tokens, VectorQuantizer, build_quantizer


def tokens(n=5, stages=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes, gains = torch.randint(7, (2, n, stages, 3, 4), generator=generator)
    return Tokens(codes=codes, gains=gains)


def test_a_number_gives_a_batch_of_one():
    made = tokens()
    assert len(made) == 5
    assert len(Tokens()) == 0
    for got, which in ((made[1], [1]), (made[-1], [4]), (made[2:4], [2, 3]), (made[[3, 0]], [3, 0])):
        assert got == Tokens(codes=made.codes[which], gains=made.gains[which])
    assert made[torch.tensor([True, False, False, False, True])] == made[[0, 4]]
    assert [len(one) for one in made] == [1] * 5
    with pytest.raises(IndexError, match="image 5 of 5"):
        made[5]


def test_equal_tokens_hold_the_same_numbers():
    made = tokens()
    assert made == tokens()
    assert made != tokens(seed=1)
    assert made != Tokens(codes=made.codes)
    assert made[:2] != made[:3]
    assert made != 3


def test_joining_undoes_taking_apart():
    made = tokens()
    assert Tokens.cat(list(made)) == made
    assert next(iter(DataLoader(made, batch_size=5))) == made
    assert [len(batch) for batch in DataLoader(made, batch_size=2)] == [2, 2, 1]


def test_tokens_that_do_not_go_together():
    made = tokens()
    with pytest.raises(ConfigError, match="give at least one batch"):
        Tokens.cat([])
    with pytest.raises(ConfigError, match="hold different things: Tokens"):
        Tokens.cat([made, Tokens(codes=made.codes)])
    with pytest.raises(ShapeError, match=r"codes have the shapes \(5, 2, 3, 4\), \(5, 3, 3, 4\)"):
        Tokens.cat([made, tokens(stages=3)])


def test_the_first_stages():
    made = tokens()
    assert made.stages(1) == Tokens(codes=made.codes[:, :1], gains=made.gains[:, :1])
    assert made.stages(2) == made
    for count in (0, 3):
        with pytest.raises(ConfigError, match=f"{count} stages are asked for, and these tokens have 2"):
            made.stages(count)


def test_tokens_move_between_devices():
    made = tokens().to("meta")
    assert {part.device.type for part in made.parts.values()} == {"meta"}
    assert tokens().to("cpu") == tokens()


def test_trees_see_the_tensors():
    quantizer = VectorQuantizer(4, codebook_size=8, init="uniform").eval()
    made = quantizer(torch.randn(2, 4, 3, 3))
    doubled = tree_map(lambda tensor: tensor * 2, made)
    assert isinstance(doubled, Quantized)
    assert torch.equal(doubled.z_hat, 2 * made.z_hat)
    assert doubled.tokens == Tokens(codes=2 * made.tokens.codes)
    assert doubled.codebook_size == 8


def test_a_result_comes_apart_into_three():
    quantizer = VectorQuantizer(4, codebook_size=8, init="uniform")
    made = quantizer(torch.randn(2, 4, 3, 3))
    z_hat, codes, loss = made
    assert torch.equal(z_hat, made.z_hat)
    assert torch.equal(codes, made.tokens.codes)
    assert loss == made.loss == sum(made.losses.values())
    assert build_quantizer(4, "identity")(torch.randn(2, 4, 3, 3)).loss == 0


def test_perplexity_and_usage():
    z = torch.zeros(1, 1, 1, 1)
    codes = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]]).view(1, 2, 2, 2)
    made = Quantized(z, Tokens(codes=codes), codebook_size=6)
    assert made.perplexity == pytest.approx((2 + 1) / 2)
    assert made.usage == pytest.approx(3 / 6)
    none = Quantized(z, Tokens(vectors=z))
    assert none.perplexity is none.usage is None


def test_short_names():
    assert repr(VectorQuantizer(dim=32, codebook_size=512)) == "VectorQuantizer(dim=32, codebook_size=512)"
    assert repr(GainShapeQuantizer(dim=32, codebook_size=64, code_dim=5, stages=2)) == (
        "GainShapeQuantizer(dim=32, code_dim=5, codebook_size=64, levels=16, stages=2)"
    )
    assert repr(build_quantizer(32, "fsq", {"grid": [8, 5]})) == "FiniteScalarQuantizer(dim=32, grid=[8, 5])"
    assert repr(build_quantizer(32, "identity")) == "IdentityQuantizer(dim=32)"
    assert repr(tokens()) == "Tokens(codes (5, 2, 3, 4) int64, gains (5, 2, 3, 4) int64)"
