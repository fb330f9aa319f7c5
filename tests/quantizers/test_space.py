"""Every quantizer says what its tokens are, refuses others, and compiles."""

from dataclasses import replace

import pytest
import torch

from hybridvq import ConfigError, ShapeError, Tokens, build_quantizer
from hybridvq.quantizers import QUANTIZERS, Quantizer

SMALL = {"codebook_size": 12, "restart_every": 0}
CASES = [
    ("vector", SMALL),
    ("vector", SMALL | {"heads": 2, "share_codes": False, "distance": "cosine"}),
    ("projected", SMALL),
    ("frequency", SMALL | {"frequent": 3, "warmup_steps": 0}),
    ("frequency", SMALL | {"frequent": 3, "warmup_steps": 0, "rare": "projected"}),
    ("gain-shape", SMALL | {"levels": 4, "stages": 2, "code_dim": 3, "normalize": True}),
    ("gain-shape", SMALL | {"levels": 4, "rate_weight": 0.1}),
    ("gain-shape", SMALL | {"levels": None}),
    ("hybrid", {"groups": 2, "codebook_size": 4, "code_dim": 2, "width": 8, "aside_steps": 0}),
    ("hybrid", {"groups": 0}),
    ("fsq", {"grid": [5, 4, 3]}),
    ("identity", {}),
    ("gaussian", {}),
]
IDS = [f"{name}-{i}" for i, (name, _) in enumerate(CASES)]


def made(name, options):
    torch.manual_seed(0)
    quantizer = build_quantizer(6, name, options).train()
    quantizer(torch.randn(4, 6, 8, 8))
    return quantizer.eval()


def test_no_quantizer_is_left_out():
    assert {name for name, _ in CASES} == set(QUANTIZERS)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@torch.no_grad()
def test_tokens_are_of_the_space_and_others_are_refused(name, options):
    quantizer = made(name, options)
    tokens = quantizer(torch.randn(2, 6, 8, 8)).tokens
    space = quantizer.space()
    space.check(tokens)
    assert tokens.float_bits() == 0 or space.gain == "float" or space.floats
    for part in tokens.parts:
        if part != "coefficients" or space.codebook_size == 0:
            with pytest.raises(ConfigError, match=f"these tokens hold no {part}, and this model's do"):
                quantizer.dequantize(replace(tokens, **{part: None}))
        with pytest.raises(ShapeError):
            quantizer.dequantize(replace(tokens, **{part: tokens.parts[part][:1]}) if len(tokens.parts) > 1
                                 else Tokens(**{part: tokens.parts[part][0, 0]}))  # fmt: skip
    other = {"codes": torch.zeros(2, 1, 8, 8, dtype=torch.long), "vectors": torch.zeros(2, 6, 8, 8)}
    for part in other.keys() - tokens.parts.keys():
        with pytest.raises(ConfigError, match=f"these tokens hold {part}, and this model's do not"):
            quantizer.dequantize(replace(tokens, **{part: other[part]}))


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] not in ("hybrid", "gaussian")])
@torch.no_grad()
def test_codes_without_an_axis_of_stages(name, options):
    quantizer = made(name, options)
    out = quantizer(torch.randn(2, 6, 8, 8))
    if out.tokens.codes is None or quantizer.stages > 1 or out.tokens.passed is not None:
        return
    flat = Tokens(**{part: value[:, 0] for part, value in out.tokens.parts.items()})
    assert torch.equal(quantizer.dequantize(flat), quantizer.dequantize(out.tokens))
    small = replace(flat, codes=flat.codes.to(torch.uint8))
    assert torch.equal(quantizer.dequantize(small), quantizer.dequantize(out.tokens))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@torch.no_grad()
def test_compiled_and_exported_it_computes_the_same(name, options):
    quantizer, z = made(name, options), torch.randn(2, 6, 8, 8)
    expected = quantizer(z)

    def both(z):
        quantized = quantizer(z)
        return quantized, quantizer.dequantize(quantized.tokens)

    torch._dynamo.reset()
    got, z_hat = torch.compile(both, backend="eager", fullgraph=True)(z)
    exported = torch.export.export(quantizer, (z,)).module()(z)
    for result in (got, exported):
        assert result.tokens == expected.tokens
        torch.testing.assert_close(result.z_hat, expected.z_hat)
        assert result.codebook_size == quantizer.codebook_size
    torch.testing.assert_close(z_hat, expected.z_hat)


@pytest.mark.parametrize("frequent", range(7))
def test_which_codes_are_frequent(frequent):
    """The order of a stable sort, without sorting."""
    quantizer = build_quantizer(4, "frequency", {"codebook_size": 6, "frequent": frequent, "warmup_steps": 0})
    quantizer.codebook.steps.fill_(1)
    quantizer.frequencies.copy_(torch.tensor([0.1, 0.3, 0.1, 0.3, 0.1, 0.1]))
    first = quantizer.frequencies.argsort(descending=True, stable=True)[:frequent]
    assert quantizer._is_frequent().nonzero().flatten().tolist() == sorted(first.tolist())


def test_levels_need_values():
    class Levels(Quantizer):
        codebook_size, levels = 4, 2

        def quantize(self, z): ...

        def read(self, tokens): ...

    with pytest.raises(ConfigError, match="Levels has gains on levels; let its `space` say what they stand for"):
        Levels(3).space()
