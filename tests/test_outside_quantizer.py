"""A quantizer that the package does not have gets all that its own ones get."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import tiny
from codec.models import photo
from hybridvq import (
    Codec,
    ConfigError,
    Tokenizer,
    Tokens,
    build_prior,
    evaluate,
    export_onnx,
    load_recipe,
    load_tokenizer,
    load_tokens,
    tokenize,
    train,
)
from hybridvq.codec import fit_tables
from hybridvq.export import DECODER, ENCODER
from hybridvq.quantizers import QUANTIZERS, Quantized, Quantizer, TokenSpace, straight_through
from hybridvq.settings import PriorSettings, PriorTrainingSettings
from hybridvq.tokenizer import weight_hash
from hybridvq.training import fit_prior


class SignQuantizer(Quantizer):
    """The signs of a few numbers, and how far along them: z_hat = g s / sqrt(n), s in {-1, 1}^n, g one of `gains`."""

    vectors: Tensor  # (2^n, n), of length 1
    values: Tensor  # (L,)

    def __init__(self, dim: int, bits: int = 3, gains: list[float] | None = None) -> None:
        super().__init__(dim, code_dim=bits)
        self.codebook_size, self.levels = 2**bits, len(gains) if gains else None
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * bits)
        self.register_buffer("vectors", signs / bits**0.5)
        self.register_buffer("values", torch.tensor(gains or [1.0]))

    def quantize(self, z: Tensor) -> Quantized:
        strides = 2 ** torch.arange(z.shape[1]).flip(0).view(-1, 1, 1)
        codes = ((z > 0) * strides).sum(1, keepdim=True)
        along = z.abs().sum(1, keepdim=True) / z.shape[1] ** 0.5
        levels = (along[..., None] - self.values).abs().argmin(-1)
        tokens = Tokens(codes, levels if self.levels else None)
        value = self.read(tokens)
        return Quantized(straight_through(z, value), tokens, {"commitment": (z - value.detach()).square().mean()})

    def read(self, tokens: Tokens) -> Tensor:
        assert tokens.codes is not None
        directions = self.vectors[tokens.codes[:, 0]].movedim(-1, 1)
        return directions if tokens.gains is None else self.values[tokens.gains] * directions

    def space(self) -> TokenSpace:
        if not self.levels:
            return super().space()  # a code at each position, read as a vector of its own
        return TokenSpace(self.codebook_size, 1, "levels", self.values[None], self.vectors)


OPTIONS = {"codes": {}, "gains": {"gains": [0.5, 1.0, 2.0]}}


@pytest.fixture(scope="module", params=OPTIONS)
def trained(request, tmp_path_factory):
    """A model with the quantizer by name, its folder after training, and its options."""
    folder, options = tmp_path_factory.mktemp(request.param) / "run", OPTIONS[request.param]
    QUANTIZERS["sign"] = SignQuantizer
    plain = {"steps": 3, "batch_size": 4, "precision": "32-true", "warmup": 0}
    settings = {"model.quantizer": "sign", "model.options": options, "model.dim": 8}
    recipe = load_recipe("vector", settings | {f"training.{key}": value for key, value in plain.items()})
    train(recipe, tiny.images(), tiny.test_batches(), folder, progress=False)
    yield load_tokenizer(folder), folder / "model", options
    del QUANTIZERS["sign"]


def test_by_name_and_by_instance(trained):
    tokenizer, folder, options = trained
    given = Tokenizer(8, quantizer=SignQuantizer(8, **options))
    given.load_state_dict(tokenizer.state_dict())
    x = tiny.test_batches()[0]
    assert given.eval().encode(x) == tokenizer.encode(x)
    given.save_pretrained(folder.parent / "given")
    again = load_tokenizer(folder.parent / "given", quantizer=SignQuantizer(8, **options))
    assert again.encode(x) == tokenizer.encode(x)


def test_it_is_measured(trained):
    tokenizer, _, options = trained
    row = evaluate(tokenizer, tiny.test_batches())
    assert row["bits_per_position"] == pytest.approx(3 + (np.log2(3) if options else 0))
    assert row["codebook_size"] == 8


def test_it_gets_a_codec(trained):
    tokenizer, folder, _ = trained
    tokens = [tokenizer.encode(tiny.test_batches()[0]) for _ in range(2)]
    batches = [(t.codes.numpy(), None if t.gains is None else t.gains.numpy()) for t in tokens]
    codec = Codec(tokenizer, fit_tables(batches, tokenizer, weight_hash(folder), width=8, steps=5))
    image = photo(30, 37)
    assert codec.decompress(codec.compress(image)).size == (37, 30)
    assert repr(codec).startswith("Codec(SignQuantizer(dim=8, code_dim=3, codebook_size=8")


@pytest.mark.parametrize("trained", ["gains"], indirect=True)
def test_it_gets_token_shards_and_a_prior(trained, tmp_path):
    tokenizer, folder, _ = trained
    x = tiny.test_batches()[0]
    tokenize(folder, tiny.images("test"), tmp_path / "tokens", workers=1)
    stored = load_tokens(tmp_path / "tokens")
    assert stored[: len(x)].codes.shape == tokenizer.encode(x).codes.shape
    schedule = PriorTrainingSettings(steps=2, batch_size=4, eval_every=2, precision="32-true")
    settings = PriorSettings("transformer", {"width": 16, "layers": 1, "heads": 2}, training=schedule)
    prior, _ = fit_prior(settings, folder, stored, stored, tmp_path / "prior", progress=False, eval_images=4)
    drawn = prior.sample(2, (4, 4))
    tokenizer.quantizer.check(drawn)
    assert tokenizer.decode(drawn).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("trained", ["gains"], indirect=True)
@torch.no_grad()
def test_it_is_exported(trained, tmp_path):
    tokenizer, folder, _ = trained
    export_onnx(folder, tmp_path / "onnx")
    encoder, decoder = (onnxruntime.InferenceSession(tmp_path / "onnx" / name) for name in (ENCODER, DECODER))
    x = tiny.test_batches()[0][:3]
    tokens = tokenizer.encode(x)
    parts = dict(zip(tokens.parts, encoder.run(None, {"x": x.numpy()}), strict=True))
    for name, part in tokens.parts.items():
        assert (parts[name] != part.numpy()).mean() < 0.01  # where a sum is rounded another way
    given = {name: part.numpy() for name, part in tokens.parts.items()}
    np.testing.assert_allclose(decoder.run(None, given)[0], tokenizer.decode(tokens).numpy(), rtol=0, atol=1e-4)


def test_codes_that_are_no_sum_of_vectors_get_no_prior():
    space = TokenSpace(8, stages=2)
    with pytest.raises(ConfigError, match="these tokens hold codes without a vector for each, so no prior"):
        build_prior("static", space, (4, 4))
