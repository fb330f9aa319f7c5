"""Tiles give what the whole image gives: the same tokens, and the same pixels to rounding."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea
from torch import nn

from hybridvq import ConfigError, Tokenizer, tiles
from hybridvq.networks import Decoder, Encoder, build_network
from hybridvq.quantizers import Tokens

CODES = {"codebook_size": 64, "levels": 4, "stages": 2}


def tokenizer(f: int, dim: int = 8, quantizer: str = "gain-shape", **options) -> Tokenizer:
    """Random weights with batch norms that do something, so that an error at a border shows."""
    torch.manual_seed(0)
    made = Tokenizer(dim, f, quantizer, CODES | options if quantizer == "gain-shape" else options)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    return made.eval()


def photo(height: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(np.pad(chelsea(), ((0, 400), (0, 400), (0, 0)), mode="wrap")[:height, :width])


def whole(model: Tokenizer, pixels: np.ndarray) -> tuple[torch.Tensor, Tokens, torch.Tensor]:
    """The independent reference, z, tokens and x_hat: numpy's reflection, and the networks on all of it."""
    height, width, _ = pixels.shape
    f = model.downsampling
    padded = np.pad(pixels, ((0, -height % f), (0, -width % f), (0, 0)), mode="reflect")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        z, tokens = model.encoder(x), model.encode(x)
        return z, tokens, model.decode(tokens)[..., :height, :width]


def put_together(parts, height: int, width: int) -> torch.Tensor:
    out = torch.full((1, 3, height, width), torch.nan)
    for top, left, x_hat in parts:
        place = (..., slice(top, top + x_hat.shape[2]), slice(left, left + x_hat.shape[3]))
        assert out[place].isnan().all(), "no pixel is given twice"
        out[place] = x_hat
    return out


SIZES = [(1, 1), (1, 5), (3, 2), (64, 64), (65, 67), (7, 300), (210, 130)]


@pytest.mark.parametrize("tile_pixels", [1, 24, 64])
@pytest.mark.parametrize("f", [4, 8])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_are_the_whole_image(height, width, f, tile_pixels):
    if tile_pixels == 1 and height * width > 2000:
        tile_pixels = 2 * f
    model, pixels = tokenizer(f), photo(height, width)
    z, tokens, x_hat = whole(model, pixels)
    fixed = tiles.encode(model, [pixels], lambda z: Tokens(codes=(z * 2**20).round().long()), tile_pixels)
    torch.testing.assert_close((fixed.codes / 2**20).float(), z, rtol=0, atol=1e-4)
    decoded = put_together(tiles.decode(model, tokens, height, width, tile_pixels), height, width)
    torch.testing.assert_close(decoded, x_hat, rtol=0, atol=1e-5)


def test_an_image_of_one_tile_has_the_tokens_of_the_whole():
    model, pixels = tokenizer(4), photo(65, 67)
    _, expected, _ = whole(model, pixels)
    tokens = tiles.encode(model, [pixels])
    assert torch.equal(tokens.codes, expected.codes)
    assert torch.equal(tokens.gains, expected.gains)


@pytest.mark.parametrize("f", [2, 4, 8, 16])
def test_the_reach_is_what_a_cut_changes_and_no_more(f):
    """Positions and pixels that differ once the image or the grid is cut in two, by experiment."""
    check_reach(tokenizer(f).encoder, tokenizer(f).decoder, f)


def test_the_reach_of_the_photo_network():
    """With weights that are nowhere zero: those of the training start at it."""
    torch.manual_seed(0)
    encoder, decoder = build_network("photo", 8, 8, {"widths": [4, 5], "decoder_width": 4})
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        nn.init.normal_(parameter, std=0.3)
    check_reach(encoder, decoder.train(), 8)
    assert (tiles.reach(encoder), tiles.reach(decoder)) == (3, 20)


def check_reach(encoder, decoder, f):
    x, z = torch.randn(1, 3, 16, 32 * f).double(), torch.randn(1, 8, 4, 32).double()
    for network, inputs, at in ((encoder.double(), x, 16 * f), (decoder.double(), z, 16)):
        with torch.inference_mode():
            complete = network(inputs)
            left, right = network(inputs[..., :at]), network(inputs[..., at:])
        cut = left.shape[3]
        changed = [
            ((left - complete[..., :cut]).abs().amax((0, 1, 2)).flip(0) > 1e-12),
            ((right - complete[..., cut:]).abs().amax((0, 1, 2)) > 1e-12),
        ]
        assert max(int(side.nonzero().max()) + 1 for side in changed) == tiles.reach(network)


@pytest.mark.parametrize("f", [4, 8])
def test_a_margin_of_one_position_less_would_not_do(f, monkeypatch):
    model, pixels = tokenizer(f), photo(96, 96)
    _, expected, x_hat = whole(model, pixels)
    true_reach = tiles.reach
    monkeypatch.setattr(tiles, "reach", lambda network: true_reach(network) - f)
    decoded = put_together(tiles.decode(model, expected, 96, 96, 32), 96, 96)
    assert (decoded - x_hat).abs().max() > 1e-4


def test_reach_counts_the_layers():
    assert (tiles.reach(Encoder(4, 4)), tiles.reach(Encoder(4, 8))) == (3, 3)
    assert (tiles.reach(Decoder(4, 4)), tiles.reach(Decoder(4, 8))) == (11, 23)


def test_a_pillow_image_is_its_array():
    model, pixels = tokenizer(4), photo(50, 70)
    a = tiles.encode(model, [pixels], tile_pixels=16)
    b = tiles.encode(model, [Image.fromarray(pixels)], tile_pixels=16)
    assert torch.equal(a.codes, b.codes)


def test_quantizers_without_gains_and_other_choices():
    model, pixels = tokenizer(4, quantizer="vector", codebook_size=32), photo(30, 41)
    tokens = tiles.encode(model, [pixels], tile_pixels=16)
    differ = tokens.codes != whole(model, pixels)[1].codes
    assert differ.float().mean() < 0.03, "but where a vector lies half-way between two codes"
    assert tokens.gains is None
    zeros = tiles.encode(model, [pixels], lambda z: Tokens(codes=torch.zeros(1, 1, *z.shape[2:]).long()), 16)
    assert zeros.codes.shape == tokens.codes.shape
    assert not zeros.codes.any()


def test_the_model_is_left_in_the_mode_it_was_in():
    model = tokenizer(4).train()
    tiles.encode(model, [photo(9, 9)])
    assert model.training


@pytest.mark.parametrize(
    "layer",
    [
        nn.Upsample(scale_factor=2),
        nn.AvgPool2d(2),
        nn.GroupNorm(1, 4),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, (3, 1)),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 4, stride=2, output_padding=1),
        type("Attention", (nn.Module,), {"forward": lambda self, x: x.flip(3)})(),
        type("Reverse", (nn.Sequential,), {"forward": lambda self, x: x.flip(3)})(nn.ReLU()),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_unknown_reach_are_refused(layer):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), layer)
    with pytest.raises(ConfigError, match=f"in tiles through {type(layer).__name__}, whose receptive field is not"):
        tiles.reach(network)


def test_side_by_side_the_furthest_sight_counts():
    """A module from outside that adds two convolutions: its reach by `paths`, and by experiment."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.paths = nn.ModuleList([nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 2, 7, padding=3)])

        def forward(self, x):
            return sum(path(x) for path in self.paths)

    assert tiles.reach(Both()) == 3
    assert tiles.reach(nn.Sequential(Both(), nn.PixelShuffle(2), nn.LeakyReLU())) == 6
