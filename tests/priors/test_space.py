import pytest
import torch

import tiny
from hybridvq import ConfigError, ShapeError, Tokenizer
from hybridvq.priors import TokenSpace
from hybridvq.quantizers import Tokens
from priors.spaces import space, tokens


def trained(name, **options):
    settings = tiny.model(name, **options)
    torch.manual_seed(0)
    made = Tokenizer(8, 4, settings.quantizer, settings.options)
    made.train()(torch.rand(16, 3, 32, 32) * 2 - 1)
    return made.eval()


@pytest.mark.parametrize(
    ("name", "options", "kind", "stages"),
    [
        ("vector", {}, "none", 1),
        ("vector", {"code_dim": 3}, "none", 1),
        ("projected", {}, "float", 1),
        ("gain-shape", {}, "levels", 1),
        ("gain-shape", {"stages": 2, "code_dim": 4, "rate_weight": 0.1}, "levels", 2),
        ("gain-shape", {"levels": None, "stages": 2}, "float", 2),
    ],
)
@torch.no_grad()
def test_a_position_is_the_sum_of_gains_times_vectors(name, options, kind, stages):
    tokenizer = trained(name, **options)
    quantizer, made = tokenizer.quantizer, TokenSpace.of(tokenizer)
    assert (made.gain, made.stages, made.codebook_size, made.levels) == (
        kind, stages, quantizer.codebook_size, quantizer.levels
    )  # fmt: skip
    encoded = tokenizer.encode(torch.rand(2, 3, 16, 16) * 2 - 1)
    made.check(encoded)
    total = torch.zeros(2, 4, 4, made.dim)
    for s in range(stages):
        gains = torch.ones(2, 4, 4) if encoded.gains is None else encoded.gains[:, s]
        if kind == "levels":
            gains = made.level_values[s, gains]
        total += gains[..., None] * made.vectors[encoded.codes[:, s]]
    torch.testing.assert_close(total.movedim(-1, 1), quantizer.read(encoded))


def test_a_space_is_a_copy():
    tokenizer = trained("gain-shape")
    made = TokenSpace.of(tokenizer)
    vectors, values = made.vectors.clone(), made.level_values.clone()
    for buffer in tokenizer.quantizer.buffers():
        buffer.zero_()
    assert torch.equal(made.vectors, vectors)
    assert torch.equal(made.level_values, values)


@pytest.mark.parametrize("name", ["identity", "gaussian", "frequency", "frequency-projected"])
def test_tokens_that_no_prior_models(name):
    with pytest.raises(ConfigError, match=f"the tokens of a {name.split('-')[0]} tokenizer are not a code.* use a vec"):
        TokenSpace.of(trained(name))


CODES = torch.zeros(2, 1, 3, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("kind", "wrong", "error", "message"),
    [
        ("none", Tokens(vectors=torch.zeros(2, 4, 3, 4)), ConfigError, "are not a code at every position"),
        ("none", Tokens(codes=CODES, vectors=torch.zeros(2, 4, 3, 4)), ConfigError, "are not a code at every position"),
        ("float", Tokens(codes=CODES, gains=CODES.float(), passed=CODES > 0), ConfigError, "are not a code at every"),
        ("none", Tokens(codes=CODES[:, 0]), ShapeError, r"codes have shape \(2, 3, 4\); this prior takes \(batch, 1,"),
        ("none", Tokens(codes=CODES.expand(2, 2, 3, 4)), ShapeError, r"codes have shape \(2, 2, 3, 4\)"),
        ("none", Tokens(codes=CODES[:0]), ShapeError, r"codes have shape \(0, 1, 3, 4\)"),
        ("none", Tokens(codes=CODES + 5), ConfigError, "one of the codes is 5; they go from 0 to 4"),
        ("none", Tokens(codes=CODES - 1), ConfigError, "one of the codes is -1"),
        ("none", Tokens(codes=CODES, gains=CODES), ConfigError, "hold gains, and this prior is of codes alone"),
        ("levels", Tokens(codes=CODES), ConfigError, "hold no gains, and this prior models them"),
        ("levels", Tokens(codes=CODES, gains=CODES.float()), ConfigError, "are floats, and this prior models levels"),
        ("levels", Tokens(codes=CODES, gains=CODES + 3), ConfigError, "one of the gains is 3; .* from 0 to 2"),
        ("float", Tokens(codes=CODES, gains=CODES), ConfigError, "are levels, and this prior models floats"),
        ("float", Tokens(codes=CODES, gains=CODES[..., :2].float()), ShapeError, "the gains have shape"),
    ],
)  # fmt: skip
def test_tokens_of_another_kind(kind, wrong, error, message):
    with pytest.raises(error, match=message):
        space(kind).check(wrong)
    space(kind).check(tokens(space(kind)))
