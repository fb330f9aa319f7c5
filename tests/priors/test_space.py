import pytest
import torch

import tiny
from hybridvq import ConfigError, ShapeError, Tokenizer
from hybridvq.priors import build_prior
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
        ("vector", {"heads": 2, "share_codes": False, "distance": "cosine"}, "none", 2),
        ("vector", {"heads": 2}, "none", 2),
        ("fsq", {}, "none", 1),
        ("projected", {}, "float", 1),
        ("gain-shape", {}, "levels", 1),
        ("gain-shape", {"stages": 2, "code_dim": 4, "rate_weight": 0.1}, "levels", 2),
        ("gain-shape", {"levels": None, "stages": 2}, "float", 2),
    ],
)
@torch.no_grad()
def test_a_position_is_the_sum_of_gains_times_vectors(name, options, kind, stages):
    tokenizer = trained(name, **options)
    quantizer, made = tokenizer.quantizer, tokenizer.quantizer.space()
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
        total += gains[..., None] * made.code_vectors(s)[encoded.codes[:, s]]
    torch.testing.assert_close(total.movedim(-1, 1), quantizer.read(encoded))


def test_a_prior_keeps_a_copy():
    tokenizer = trained("gain-shape")
    made = build_prior("static", tokenizer.quantizer.space(), (4, 4)).space
    vectors, values = made.vectors.clone(), made.level_values.clone()
    for buffer in tokenizer.quantizer.buffers():
        buffer.zero_()
    assert torch.equal(made.vectors, vectors)
    assert torch.equal(made.level_values, values)


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("identity", "vectors"),
        ("gaussian", "vectors"),
        ("frequency", "vectors at some positions only"),
        ("frequency-projected", "gains at some positions only"),
    ],
)
def test_tokens_that_no_prior_models(name, held):
    with pytest.raises(ConfigError, match=f"these tokens hold {held}, so no prior here can model them"):
        build_prior("static", trained(name).quantizer.space(), (4, 4))


CODES = torch.zeros(2, 1, 3, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("kind", "wrong", "error", "message"),
    [
        ("none", Tokens(vectors=torch.zeros(2, 4, 3, 4)), ConfigError, "hold no codes, and this model's do"),
        ("none", Tokens(codes=CODES, vectors=torch.zeros(2, 4, 3, 4)), ConfigError, "hold vectors, and this model's"),
        ("float", Tokens(codes=CODES, gains=CODES.float(), passed=CODES > 0), ConfigError, "hold passed, and this"),
        ("none", Tokens(codes=CODES[:, 0]), ShapeError, r"codes have shape \(2, 3, 4\); they must be \(batch, 1,"),
        ("none", Tokens(codes=CODES.expand(2, 2, 3, 4)), ShapeError, r"codes have shape \(2, 2, 3, 4\)"),
        ("none", Tokens(codes=CODES[:, :0]), ShapeError, r"codes have shape \(2, 0, 3, 4\)"),
        ("none", Tokens(codes=CODES + 5), ConfigError, "one of the codes is 5; they go from 0 to 4"),
        ("none", Tokens(codes=CODES - 1), ConfigError, "one of the codes is -1"),
        ("none", Tokens(codes=CODES.float()), ConfigError, r"the codes are torch.float32; .* from 0 to 4"),
        ("none", Tokens(codes=CODES == 1), ConfigError, r"the codes are torch.bool"),
        ("none", Tokens(codes=CODES, gains=CODES), ConfigError, "hold gains, and this model's do not"),
        ("levels", Tokens(codes=CODES), ConfigError, "hold no gains, and this model's do"),
        ("levels", Tokens(codes=CODES, gains=CODES.float()), ConfigError, "are floats, and this model has levels"),
        ("levels", Tokens(codes=CODES, gains=CODES + 3), ConfigError, "one of the gains is 3; .* from 0 to 2"),
        ("float", Tokens(codes=CODES, gains=CODES), ConfigError, "are levels, and this model has floats"),
        ("float", Tokens(codes=CODES, gains=CODES[..., :2].float()), ShapeError, "the gains have shape"),
    ],
)  # fmt: skip
def test_tokens_of_another_kind(kind, wrong, error, message):
    with pytest.raises(error, match=message):
        space(kind).check(wrong)
    space(kind).check(tokens(space(kind)))


def test_priors_take_every_stage_of_at_least_one_position():
    static = build_prior("static", space(stages=2), (3, 4))
    for wrong in (Tokens(codes=CODES, gains=CODES), tokens(space(stages=2), n=0)):
        with pytest.raises(ShapeError, match=r"this prior takes \(batch, 2, height, width\), none of them 0"):
            static.score(wrong)
