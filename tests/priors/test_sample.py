"""What is drawn follows the score, the seed, the temperature and what is kept."""

import math

import pytest
import torch
from scipy import stats

from hybridvq import ConfigError, ShapeError
from hybridvq.priors import bits_per_position
from hybridvq.quantizers import Tokens
from priors.spaces import CASES, SMALL, every, prior, space, tokens

FINITE = [case for case in CASES if case[2] != "float"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def same(a, b):
    return all(
        (x is None) == (y is None) and (x is None or torch.allclose(x, y, atol=1e-4))
        for x, y in zip((a.codes, a.gains), (b.codes, b.gains), strict=True)
    )


@pytest.mark.parametrize(("name", "stages", "kind", "head"), FINITE)
def test_frequencies_follow_the_score(name, stages, kind, head):
    of, n = space(kind, stages, k=3, levels=2), 6000
    made = prior(name, of, (1, 2), head=head)
    drawn = made.sample(n, (1, 2), generator=seeded())
    grids = every(of, (1, 2))
    expected = made.log_prob(grids).detach().double().exp() * n
    symbols = drawn.codes if drawn.gains is None else drawn.codes * 2 + drawn.gains
    base = 3 * (of.levels or 1)
    places = base ** torch.arange(2 * stages - 1, -1, -1)
    observed = torch.bincount((symbols.flatten(1) * places).sum(1), minlength=len(expected))
    often = expected.argsort(descending=True)[: (expected > 5).sum()]
    assert observed[often].sum().item() == pytest.approx(expected[often].sum().item(), abs=4 * n**0.5)
    observed, expected = observed[often].double(), expected[often]
    expected = expected * (observed.sum() / expected.sum())
    assert stats.chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("name", "stages", "kind", "head"), [case for case in CASES if case[2] == "float"])
def test_float_gains_follow_their_distribution(name, stages, kind, head):
    """The distribution function of a gain, at the gain itself, is uniform."""
    made = prior(name, space(kind, stages), (1, 2), head=head)
    drawn = made.sample(1500, (1, 2), generator=seeded())
    cells = torch.full_like(drawn.gains, -math.inf), drawn.gains
    below = made.score(drawn, cells=cells).gain.exp().detach()
    for values in below.movedim(0, -1).flatten(0, -2):
        assert stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("name", "stages", "kind", "head"), CASES)
def test_a_seed_means_the_same_tokens_with_and_without_a_cache(name, stages, kind, head):
    classes = None if name == "static" else 3
    made = prior(name, space(kind, stages), head=head, classes=classes)
    options = {} if classes is None else {"label": torch.tensor([0, 1, 2, 0]), "guidance": 1.5}
    state = {key: value.clone() for key, value in made.state_dict().items()}
    drawn = made.sample(4, (3, 4), generator=seeded(1), **options)
    assert same(drawn, made.sample(4, (3, 4), generator=seeded(1), **options))
    assert same(drawn, made.sample(4, (3, 4), generator=seeded(1), cache=False, **options))
    assert not same(drawn, made.sample(4, (3, 4), generator=seeded(2), **options))
    assert drawn.codes.shape == (4, stages, 3, 4)
    assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())
    made.space.check(drawn)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", ["none", "levels", "float"])
def test_kept_positions_are_kept_and_the_rest_follows_them(name, kind):
    of = space(kind)
    made, given = prior(name, of), tokens(of, 1)
    keep = torch.zeros(3, 4, dtype=torch.bool)
    keep[0], keep[2, 1] = True, True
    drawn = made.sample(40, (3, 4), given=given, keep=keep, generator=seeded())
    assert torch.equal(drawn.codes[..., keep], given.codes[..., keep].expand(40, -1, -1))
    if kind != "none":
        assert torch.equal(drawn.gains[..., keep], given.gains[..., keep].expand(40, -1, -1))
    other = Tokens(codes=(given.codes + 1) % 5, gains=given.gains)
    changed = made.sample(40, (3, 4), given=other, keep=keep, generator=seeded())
    assert torch.equal(changed.codes[..., ~keep], drawn.codes[..., ~keep]) == (name == "static")
    everything = torch.ones(3, 4, dtype=torch.bool)
    assert same(made.sample(1, (3, 4), given=given, keep=everything), given)
    nothing = made.sample(40, (3, 4), given=given, keep=~everything, generator=seeded())
    assert same(nothing, made.sample(40, (3, 4), generator=seeded()))


@pytest.mark.parametrize("name", ["pixelcnn", "transformer"])
@pytest.mark.parametrize("kind", ["levels", "float"])
@torch.no_grad()
def test_temperature_zero_follows_the_most_likely_path(name, kind):
    made = prior(name, space(kind))
    drawn = made.sample(2, (3, 4), temperature=0)
    context = made.context(drawn, None)[:, 0]
    assert torch.equal(drawn.codes[:, 0], made.code_logits(context, 0).argmax(-1))
    assert same(drawn, made.sample(2, (3, 4), temperature=0, generator=seeded(3)))
    if kind == "levels":
        parameters = made.gain_parameters(context, drawn.codes[:, 0], 0)
        assert torch.equal(drawn.gains[:, 0], parameters.argmax(-1))


@pytest.mark.parametrize("name", ["pixelcnn", "transformer", "masked"])
@pytest.mark.parametrize("head", ["categorical", "mixture"])
def test_guidance_moves_from_no_label_to_the_label(name, head):
    made, label = prior(name, space(), classes=2, head=head), torch.tensor([0, 1] * 4)

    def draw(label, guidance=1.0):
        return made.sample(8, (3, 4), label, guidance=guidance, generator=seeded())

    plain, free, guided = draw(label), draw(None), draw(label, 3.0)
    assert not same(plain, free)
    assert not same(plain, guided)
    assert torch.equal(draw(label, 1e-9).codes, free.codes) or head == "mixture"  # densities stay conditional


@pytest.mark.parametrize("name", ["pixelcnn", "transformer", "masked"])
def test_a_prior_trained_without_label_dropout_knows_no_images_without_a_label(name):
    made, label = prior(name, space(), classes=2, label_dropout=0.0), torch.tensor([0, 1])
    made.space.check(made.sample(2, (3, 4), label))
    with pytest.raises(ConfigError, match=r"guidance is 2\.0, but this prior was trained without label dropout"):
        made.sample(2, (3, 4), label, guidance=2.0)
    for call in (lambda: made.sample(2, (3, 4)), lambda: made.score(tokens(space(), 2))):
        with pytest.raises(ConfigError, match="knows no images without a label; give label, or train it with"):
            call()
    prior(name, space(), label_dropout=0.0).sample(2, (3, 4))  # without classes nothing was left out


def test_every_part_keeps_its_mode():
    made = prior("transformer", space("float"), classes=2).train()
    made.blocks[0].eval()
    modes = [part.training for part in made.modules()]
    assert len(set(modes)) == 2
    made.sample(2, (3, 4))
    bits_per_position(made, [(tokens(space("float")), None)])
    with pytest.raises(ShapeError):
        bits_per_position(made, [(tokens(space("float"), shape=(9, 9)), None)])
    assert [part.training for part in made.modules()] == modes


def test_modes_and_gradients():
    """Drawing evaluates, leaves the mode alone, and gives tensors that a loss may use."""
    made = prior("transformer", space("float"), dropout=0.5).train()
    drawn = made.sample(2, (3, 4), generator=seeded())
    assert made.training
    assert not drawn.codes.is_inference()
    assert not drawn.gains.requires_grad
    made.log_prob(drawn).sum().backward()
    assert same(drawn, made.eval().sample(2, (3, 4), generator=seeded()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ShapeError, "n is 0; draw at least 1"),
        ({"shape": (0, 4)}, ShapeError, r"shape is \(0, 4\); give the height and width"),
        ({"temperature": -1}, ConfigError, "temperature is -1; "),
        ({"top_k": 0}, ConfigError, "top_k is 0; "),
        ({"top_p": 2}, ConfigError, "top_p is 2; "),
        ({"guidance": 2.0}, ConfigError, "guidance is 2.0, but there is no label to guide towards; give label"),
        ({"given": tokens(space(), 1)}, ConfigError, "given and keep go together"),
        ({"keep": torch.ones(3, 4) > 0}, ConfigError, "given and keep go together"),
        ({"given": tokens(space("none"), 1), "keep": torch.ones(3, 4) > 0}, ConfigError, "hold no gains"),
        ({"given": tokens(space(), 3), "keep": torch.ones(3, 4) > 0}, ShapeError, r"given holds codes of shape \(3, 1"),
        ({"given": tokens(space(), 2), "keep": torch.ones(3, 3) > 0}, ShapeError, r"keep has shape \(3, 3\)"),
    ],
)
@pytest.mark.parametrize("name", SMALL)
def test_wrong_requests_are_named(name, options, error, message):
    classes = None if name == "static" else 2
    with pytest.raises(error, match=message):
        prior(name, space(), classes=classes).sample(**{"n": 2, "shape": (3, 4)} | options)
