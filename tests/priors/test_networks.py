"""What the PixelCNN and the transformer must do beyond what every prior does."""

import math

import pytest
import torch

from hybridvq import ConfigError, PixelCNNPrior, ShapeError, TransformerPrior
from hybridvq.quantizers import Tokens
from priors.spaces import SMALL, prior, space, tokens

SHAPE = (6, 6)


@torch.no_grad()
def test_pixelcnn_has_no_blind_spot():
    """Within its depth every position before moves every score after."""
    of = space()
    made, given = prior("pixelcnn", of, SHAPE, layers=4, width=32).double(), tokens(of, 1, SHAPE)
    before = made.context(given, None).flatten(0, 3)
    for t in range(36):
        codes = given.codes.flatten().clone()
        codes[t] = (codes[t] + 1) % 5
        after = made.context(Tokens(codes=codes.view_as(given.codes), gains=given.gains), None).flatten(0, 3)
        assert (after != before).any(1).tolist() == [False] * (t + 1) + [True] * (35 - t)


@torch.no_grad()
def test_pixelcnn_reads_what_masks_would_leave():
    """The first layer's two stacks are 7x7 convolutions whose kernels hold zeros from the position on."""
    made = prior("pixelcnn", space(), SHAPE, layers=1)
    layer, x = made.stack[0], torch.randn(2, 8, 6, 6)
    weight = torch.zeros(16, 8, 7, 7)
    weight[:, :, :3] = layer.vertical.weight
    above = torch.nn.functional.conv2d(x, weight, layer.vertical.bias, padding=3)
    weight = torch.zeros(16, 8, 7, 7)
    weight[:, :, 3, :3] = layer.horizontal.weight[:, :, 0]
    left = torch.nn.functional.conv2d(x, weight, layer.horizontal.bias, padding=3) + layer.across(above)
    v, h = (a.tanh() * b.sigmoid() for a, b in (part.chunk(2, 1) for part in (above, left)))
    for ours, theirs in zip(layer(x, x, None), (v, layer.residual(h)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "stages"), [("none", 1), ("levels", 2), ("float", 1)])
@torch.no_grad()
def test_cached_contexts_are_those_of_the_whole_sequence(kind, stages):
    of = space(kind, stages)
    made, given = prior("transformer", of, (5, 6), classes=3), tokens(of, 3, (4, 5))
    label = torch.tensor([2, 0, 1])
    whole = made.context(given, label).permute(2, 3, 1, 0, 4).flatten(0, 2)  # (T, B, width)
    cached = torch.stack(list(made.walk(given, label)))
    again = torch.stack(list(made.walk(given, label, cache=False)))
    torch.testing.assert_close(cached, whole)
    torch.testing.assert_close(again, whole)


@pytest.mark.parametrize("name", ["pixelcnn", "transformer"])
@pytest.mark.parametrize(("kind", "head"), [("none", None), ("levels", "categorical"), ("levels", "mixture")])
def test_a_pattern_is_learned_by_heart(name, kind, head):
    of, (h, w) = space(kind, k=8), (4, 4)
    place = torch.arange(h)[:, None] * 3 + torch.arange(w) * 2
    codes = torch.stack([(place + c) % 8 for c in (0, 1)])[:, None]
    pattern = Tokens(codes=codes, gains=None if kind == "none" else (codes // 2 + place) % 3)
    torch.manual_seed(0)
    options = SMALL[name] | {"width": 32, "label_dropout": 0.0} | ({} if head is None else {"gain": head})
    made = {"pixelcnn": PixelCNNPrior, "transformer": TransformerPrior}[name](of, (h, w), 2, **options)
    label, optimizer = torch.arange(2), torch.optim.Adam(made.parameters(), 0.005)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -made.log_prob(pattern, label).mean() / (h * w)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.05 * math.log(8 * (of.levels or 1))
    drawn = made.sample(2, (h, w), label, temperature=0)
    assert torch.equal(drawn.codes, codes)
    assert kind == "none" or torch.equal(drawn.gains, pattern.gains)


@torch.no_grad()
def test_grids_of_other_sizes():
    of = space()
    assert prior("transformer", of).score(tokens(of, 2, (2, 3))).code.shape == (2, 1, 2, 3)
    assert prior("pixelcnn", of).score(tokens(of, 2, (9, 8))).code.shape == (2, 1, 9, 8)
    made = prior("transformer", of)
    for call in (lambda: made.score(tokens(of, 1, (3, 5))), lambda: made.sample(1, (3, 5))):
        with pytest.raises(ShapeError, match="the grid is 3x5, and this prior was built for at most 3x4"):
            call()


def test_one_position():
    of = space("float", stages=2)
    made = prior("transformer", of, (1, 1))
    assert made.sample(3, (1, 1)).codes.shape == (3, 2, 1, 1)


@torch.no_grad()
def test_similar_codes_share_statistics():
    """A code never seen is embedded and predicted like its neighbor in the codebook."""
    of = space(k=5)
    of.vectors[4] = of.vectors[3]
    made = prior("transformer", of)
    for part in (made.embedding.code, made.gain_output.code):
        part.weight.zero_()
    made.code_output.free.weight.zero_()
    made.code_output.bias.zero_()
    given = tokens(of)
    as_three, as_four = (
        made.score(Tokens(codes=given.codes.where(given.codes < 3, k), gains=given.gains)) for k in (3, 4)
    )
    torch.testing.assert_close(as_three.code, as_four.code)
    torch.testing.assert_close(as_three.gain, as_four.gain)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PixelCNNPrior, {"layers": 0}, "layers is 0"),
        (PixelCNNPrior, {"width": 2**40}, "width is 1099511627776"),
        (TransformerPrior, {"label_dropout": float("nan")}, "label_dropout is nan"),
        (TransformerPrior, {"dropout": -0.5}, "dropout is -0.5"),
        (TransformerPrior, {"layers": 10**9}, "layers is 1000000000"),
        (TransformerPrior, {"gain": "mixture", "components": 10**9}, "components is 1000000000"),
        (TransformerPrior, {"classes": 2**40}, "classes is 1099511627776"),
        (PixelCNNPrior, {"width": 0}, "width is 0"),
        (PixelCNNPrior, {"label_dropout": 1.0}, "label_dropout is 1.0"),
        (TransformerPrior, {"layers": 0}, "layers is 0"),
        (TransformerPrior, {"width": 20, "heads": 3}, "width is 20 and heads is 3; width must be a multiple of heads"),
        (TransformerPrior, {"heads": 0}, "heads is 0"),
        (TransformerPrior, {"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_options_that_have_no_such_value(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(space(), (3, 4), **options)


def test_pixelcnn_models_one_code_a_position():
    with pytest.raises(ConfigError, match="pixelcnn models one code per position, and these tokens have 2"):
        PixelCNNPrior(space(stages=2), (3, 4))
