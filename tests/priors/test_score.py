"""What holds of the score of every prior: it is causal, it sums to one, and it says what is wrong."""

import itertools
import math

import pytest
import torch

from hybridvq import ConfigError, ShapeError
from hybridvq.priors import build_prior, steps
from hybridvq.quantizers import Tokens
from priors.spaces import CASES, SMALL, every, prior, space, tokens

FINITE = [case for case in CASES if case[2] != "float"]


def in_order(part):
    """(B, S, h, w) to (B, T), in the order of the sequence."""
    return part.permute(0, 2, 3, 1).flatten(1)


def moved(before, after):
    return (in_order(before) != in_order(after)).any(0)


@pytest.mark.parametrize(("name", "stages", "kind", "head"), CASES)
@pytest.mark.parametrize("part", ["codes", "gains"])
@torch.no_grad()
def test_every_score_depends_on_its_past_alone(name, stages, kind, head, part):
    of = space(kind, stages)
    made, given = prior(name, of, head=head), tokens(of)
    if part == "gains" and kind == "none":
        return
    before = made.score(given)
    for t, (s, i, j) in enumerate(steps(stages, (3, 4))):
        values = getattr(given, part).clone()
        if part == "codes" or kind == "levels":
            values[:, s, i, j] = (values[:, s, i, j] + 1) % (of.codebook_size if part == "codes" else of.levels)
        else:
            values[:, s, i, j] += 0.7
        after = made.score(Tokens(**vars(given) | {part: values}))
        codes_moved = moved(before.code, after.code)
        assert not codes_moved[:t].any()
        assert codes_moved[t] == (part == "codes")
        assert codes_moved[t + 1 :].all() == (name != "static" or t == stages * 12 - 1)
        if kind != "none":
            gains_moved = moved(before.gain, after.gain)
            assert not gains_moved[:t].any()
            assert gains_moved[t]
            assert gains_moved[t + 1 :].all() == (name != "static" or t == stages * 12 - 1)


@pytest.mark.parametrize(("name", "stages", "kind", "head"), FINITE)
@torch.no_grad()
def test_probabilities_of_all_grids_sum_to_one(name, stages, kind, head):
    of, shape = space(kind, stages, k=2, levels=2), (1, 2) if stages == 2 else (2, 2)
    made = prior(name, of, shape, head=head, classes=None if name == "static" else 2)
    grids = every(of, shape)
    labels = [None] if name == "static" else [None, torch.ones(len(grids.codes), dtype=torch.long)]
    for label in labels:
        p = made.log_prob(grids, label).double().exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-5)
        assert p.max() > 1.5 * p.min()


@pytest.mark.parametrize(("name", "stages", "kind", "head"), [case for case in CASES if case[2] == "float"])
@torch.no_grad()
def test_cells_share_out_the_mass_and_small_ones_hold_the_density(name, stages, kind, head):
    of = space(kind, stages)
    made, given = prior(name, of, head=head), tokens(of)
    edges = [-math.inf, -2.0, 0.0, 1.0, 1.5, 6.0, math.inf]
    total = torch.zeros_like(given.gains)
    for low, high in itertools.pairwise(edges):
        cells = torch.full_like(given.gains, low), torch.full_like(given.gains, high)
        total += made.score(given, cells=cells).gain.exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=2e-5)
    score, width = made.score(given), 0.01
    masses = made.score(given, cells=(given.gains - width / 2, given.gains + width / 2))
    assert torch.equal(masses.code, score.code)
    torch.testing.assert_close(masses.gain - math.log(width), score.gain, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("name", ["pixelcnn", "transformer", "masked"])
@pytest.mark.parametrize("kind", ["none", "levels", "float"])
def test_an_untrained_prior_spends_log_k_and_every_weight_has_a_gradient(name, kind):
    of = space(kind, k=300, levels=7)
    torch.manual_seed(0)
    made = build_prior(name, of, (3, 4), 4, SMALL[name])
    given = tokens(of, 16)
    made.fit_scale(given.gains)
    score = made.score(given, torch.arange(16) % 4)
    assert score.code.mean().item() == pytest.approx(-math.log(300), rel=0.01)
    if kind == "levels":
        assert score.gain.mean().item() == pytest.approx(-math.log(7), rel=0.02)
    if kind == "float":
        entropy = 0.5 * math.log(2 * math.pi * math.e) + given.gains.std().log().item()
        assert score.gain.mean().item() == pytest.approx(-entropy, rel=0.15 if name == "masked" else 0.05)
    if name != "masked":  # each call of which hides others
        torch.testing.assert_close(score.total(), made.log_prob(given, torch.arange(16) % 4), rtol=0.05, atol=0)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    score.total().sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert not [key for key, p in made.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("name", ["pixelcnn", "transformer", "masked"])
def test_labels_matter_and_are_dropped_in_training_alone(name):
    of = space()
    made, given = prior(name, of, classes=2, label_dropout=0.999999), tokens(of)
    zero, one = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    scores = [made.log_prob(given, label) for label in (None, zero, one)]
    assert not torch.isclose(scores[0], scores[1]).any()
    assert not torch.isclose(scores[1], scores[2]).any()
    if name != "masked":  # which hides other codes in training
        assert torch.equal(made.train().log_prob(given, one), scores[0])


def test_a_score_adds_up():
    of = space(stages=2)
    made, given = prior("transformer", of), tokens(of)
    score = made(given)
    assert score.code.shape == score.gain.shape == given.codes.shape
    torch.testing.assert_close(made.log_prob(given), (score.code.sum((1, 2, 3)) + score.gain.sum((1, 2, 3))))


LABEL = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("classes", "label", "error", "message"),
    [
        (None, LABEL, ConfigError, "built without classes, so it takes no labels"),
        (2, LABEL, ConfigError, "one of the labels is 2; they go from 0 to 1"),
        (3, LABEL - 1, ConfigError, "one of the labels is -1"),
        (3, LABEL[:2], ShapeError, r"label is torch.int64 of shape \(2,\); it must be int64 of shape \(3,\)"),
        (3, LABEL.float(), ShapeError, r"label is torch.float32 of shape \(3,\)"),
    ],
)
def test_labels_out_of_range(classes, label, error, message):
    made = prior("transformer", space(), classes=classes)
    with pytest.raises(error, match=message):
        made.score(tokens(space()), label)
    with pytest.raises(error, match=message):
        made.sample(3, (3, 4), label)


@pytest.mark.parametrize("name", SMALL)
def test_tokens_of_another_kind_are_refused(name):
    made = prior(name, space())
    with pytest.raises(ConfigError, match="these tokens hold no gains"):
        made.score(Tokens(codes=tokens(space()).codes))
    with pytest.raises(ShapeError, match="the codes have shape"):
        made.log_prob(tokens(space(stages=2)))


def test_cells_of_another_kind_are_refused():
    given = tokens(space())
    with pytest.raises(ConfigError, match="the gains of this prior are no floats"):
        prior("transformer", space()).score(given, cells=(given.codes, given.codes))
    given = tokens(space("float"))
    with pytest.raises(ShapeError, match=r"cells must be two tensors of shape \(3, 1, 3, 4\)"):
        prior("transformer", space("float")).score(given, cells=(given.gains, given.gains[:, :, :1]))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("change", "message"),
    [({"shape": (3, 0)}, r"shape\[1\] is 0"), ({"classes": 0}, "classes is 0"), ({"head": "x"}, "no gain head nam")],
)
def test_arguments_of_every_prior(name, change, message):
    with pytest.raises(ConfigError, match=message):
        prior(name, space(), **change)
