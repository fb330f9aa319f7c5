"""What is shown of a picture is what the tokenizer and the codec do with it."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tiny
from codec.models import photo
from hybridvq import ConfigError, Tokenizer, Tokens
from hybridvq.app import reconstruct
from hybridvq.app.models import load_model
from hybridvq.app.picture import Picture
from hybridvq.evaluation import reconstruct as through
from hybridvq.pixels import to_pixels


@pytest.fixture
def picture():
    return Picture("cat", photo(48, 64))


def test_pixels_and_bits_are_the_tokenizers(loaded, picture):
    shown = reconstruct.decode(loaded.model, picture, reconstruct.encode(loaded.model, picture))
    x = torch.from_numpy(picture.pixels).movedim(-1, 0)[None].float() / 127.5 - 1
    x_hat, bits = through(loaded.model.tokenizer, x)
    np.testing.assert_array_equal(shown.pixels, to_pixels(x_hat)[0])
    assert shown.raw_bpp == pytest.approx(bits / (48 * 64))
    assert shown.mse == pytest.approx(float(F.mse_loss(to_pixels(x_hat)[0] / 127.5, picture_tensor(picture))), rel=1e-5)
    assert (shown.codes.shape, shown.gains.shape) == ((12, 16), (12, 16))


def picture_tensor(picture):
    return torch.from_numpy(picture.pixels) / 127.5


def test_what_is_shown_is_the_codecs(loaded):
    """Pixels as its files give them, and its bits but for header and checksum; at an odd size."""
    picture, codec = Picture("cat", photo(45, 63)), loaded.model.codec
    shown = reconstruct.decode(loaded.model, picture, reconstruct.encode(loaded.model, picture))
    data = codec.compress(picture.pixels)
    np.testing.assert_array_equal(shown.pixels, np.asarray(codec.decompress(data)))
    assert 0 < 8 * len(data) - shown.codec_bpp * 45 * 63 < 8 * 50
    assert len(np.unique(shown.gains)) <= 4


def test_gains_are_scaled(loaded, picture):
    model = loaded.model
    z = reconstruct.encode(model, picture)
    as_is, half, none = (reconstruct.decode(model, picture, z, s) for s in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(half.gains, as_is.gains / 2, rtol=1e-6)
    assert as_is.mse < half.mse < none.mse
    tokens = model.tokenizer.encode(torch.zeros(1, 3, 48, 64))
    flat = model.tokenizer.decoder(model.tokenizer.quantizer.from_code(0 * model.tokenizer.quantizer.read(tokens)))
    np.testing.assert_array_equal(none.pixels, to_pixels(flat)[0])


@pytest.mark.parametrize("name", ["vector", "projected", "gain-shape"])
def test_any_model_with_codes(name, picture, tmp_path):
    settings = tiny.model(name)
    Tokenizer(8, 4, settings.quantizer, settings.options).save_pretrained(tmp_path / name)
    model = load_model(str(tmp_path / name))
    shown = reconstruct.decode(model, picture, reconstruct.encode(model, picture))
    assert (model.codec, shown.codec_bpp) == (None, None)
    assert "run `hybridvq fit-codec`" in model.problem
    kinds = {"vector": "–", "projected": "float", "gain-shape": "4"}
    assert reconstruct.gain_kind(model) == kinds[name]
    page = reconstruct.render(picture, (model, model), (shown, shown))
    assert page.count("<img") == (9 if name != "vector" else 7)


def test_a_model_without_codes_is_refused(tmp_path):
    Tokenizer(8, 4, "identity").save_pretrained(tmp_path / "none")
    with pytest.raises(
        ConfigError, match="none has no codebook that can be shown; give a vector, projected, gain-shape or fsq"
    ):
        load_model(str(tmp_path / "none"))


def test_one_pixel(loaded):
    picture = Picture("dot", np.full((1, 1, 3), 200, np.uint8))
    for model in (loaded.model, loaded.baseline):
        assert reconstruct.decode(model, picture, reconstruct.encode(model, picture)).pixels.shape == (1, 1, 3)


@torch.inference_mode()
def test_codes_alone_are_each_code_decoded_by_itself(loaded, picture):
    """At one gain, the middle one of the picture."""
    model = loaded.model
    z = reconstruct.encode(model, picture)
    shown, tokens = reconstruct.decode(model, picture, z), model.tokenizer.quantizer(z).tokens
    level = tokens.gains[0, 0].median().view(1, 1, 1, 1)
    for row, column in ((0, 0), (5, 9), (11, 15)):
        alone = model.tokenizer.decode(Tokens(tokens.codes[:, :1, row, column].view(1, 1, 1, 1), level))
        np.testing.assert_array_equal(
            shown.alone[4 * row : 4 * row + 4, 4 * column : 4 * column + 4], to_pixels(alone)[0]
        )


@torch.inference_mode()
def test_a_hybrid_model_is_shown_too(loaded, picture):
    """Its codes alone are the preview of its files; its bits are those that it counts."""
    model = loaded.hybrid
    z = reconstruct.encode(model, picture)
    shown = reconstruct.decode(model, picture, z)
    quantized = model.tokenizer.quantizer(z)
    np.testing.assert_array_equal(shown.pixels, to_pixels(model.tokenizer.decode(quantized.tokens))[0])
    preview = model.tokenizer.decode(Tokens(codes=quantized.tokens.codes))
    np.testing.assert_array_equal(shown.alone, to_pixels(preview)[0, :48, :64])
    assert shown.codec_bpp == pytest.approx(float(quantized.rate.bits) / (48 * 64))
    assert (shown.raw_bpp, shown.gains) == (None, None)
    assert "without the details" in reconstruct.render(picture, (loaded.model, model), (shown, shown))


def test_maps():
    brightness = reconstruct.gain_map(np.array([[0.0, 1.0, 2.0]])).sum(2)
    assert brightness[0, 0] < brightness[0, 1] < brightness[0, 2]
    assert reconstruct.gain_map(np.ones((2, 2))).shape == (2, 2, 3)
