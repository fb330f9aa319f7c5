"""Pictures follow from the seed and the settings."""

import numpy as np
import pytest
import torch

from codec.models import photo
from hybridvq import ConfigError
from hybridvq.app import generate
from hybridvq.app.picture import Picture
from hybridvq.generation import GAP
from hybridvq.settings import SamplingSettings

PLAIN = generate.settings_of(1.0, 0, 1.0)
SIDE = 16 + GAP


def test_the_seed_decides(loaded):
    one, again, other = (generate.draw(loaded.prior, PLAIN, seed, 3) for seed in (1, 1, 2))
    assert one.shape == (SIDE + GAP, 3 * SIDE + GAP, 3)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("controls", "settings"),
    [
        ((0.3, 0, 1.0), SamplingSettings(temperature=0.3)),
        ((1.0, 2, 1.0), SamplingSettings(top_k=2)),
        ((1.0, None, 0.1), SamplingSettings(top_p=0.1)),
        ((1.0, 0, 1.0, 1.0), SamplingSettings()),
    ],
)
@pytest.mark.parametrize(("label", "number"), [("dark", 0), ("light", 1), (generate.ANY, None)])
def test_settings_and_classes_reach_the_prior(loaded, monkeypatch, controls, settings, label, number):
    """What they do there is tested with the priors; whether pictures differ is up to the model."""
    asked = {}

    def sample(n, shape, **options):
        asked.update(options)
        return drawn

    drawn = loaded.prior.prior.sample(2, (4, 4))
    monkeypatch.setattr(loaded.prior.prior, "sample", sample)
    generate.draw(loaded.prior, generate.settings_of(*controls), 1, 2, label)
    wanted = {name: value for name, value in vars(settings).items() if name != "details"}  # of the tokenizer
    assert {name: asked[name] for name in wanted} == wanted
    assert (asked["label"] is None) if number is None else (asked["label"].tolist() == [number] * 2)


def test_guidance_is_towards_a_class(loaded):
    """Which changes pictures of a class, and not those of any."""
    plain, guided = PLAIN, generate.settings_of(1.0, 0, 1.0, 8.0)
    for label, same in ((generate.ANY, True), ("light", False)):
        one, other = (generate.draw(loaded.prior, settings, 1, 8, label) for settings in (plain, guided))
        assert np.array_equal(one, other) == same


def test_a_prior_without_label_dropout_draws_classes_alone(loaded, monkeypatch):
    monkeypatch.setattr(loaded.prior.prior, "label_dropout", 0.0)
    assert generate.choices_of(loaded.prior) == list(loaded.prior.classes)
    generate.draw(loaded.prior, generate.settings_of(1.0, 0, 1.0, 8.0), 1, 1, "light")
    with pytest.raises(ConfigError, match="the class is 'any class'; choose one of dark, light"):
        generate.draw(loaded.prior, PLAIN, 1, 1, generate.ANY)


def test_progress_goes_to_one(loaded):
    told = []
    generate.draw(loaded.prior, PLAIN, 1, 2, "light", progress=told.append)
    assert told == [(i + 1) / 16 for i in range(16)]


@torch.no_grad()
def test_classes_have_logits_of_their_own(loaded):
    prior = loaded.prior.prior
    tokens = prior.sample(1, (4, 4))
    logits = [prior.code_logits(prior.context(tokens, label), 0) for label in (torch.tensor([0]), torch.tensor([1]))]
    assert not torch.equal(*logits)


@pytest.mark.parametrize(("keep", "kept"), [("top", np.s_[:8]), ("left", np.s_[:, :8])])
def test_a_picture_is_continued(loaded, keep, kept):
    grid = generate.draw(loaded.prior, PLAIN, 1, 2, picture=Picture("cat", photo(90, 200)), keep=keep)
    given, *drawn = (grid[GAP : GAP + 16, GAP + i * SIDE : GAP + i * SIDE + 16] for i in range(3))
    erased = np.ones((16, 16), bool)
    erased[kept] = False
    assert (given[erased] == 128).all(), "what is not kept is shown gray"
    assert (given[~erased] != 128).any()
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize("seed", [None, -1, 0.5, 2**60])
def test_seeds_that_are_none(loaded, seed):
    with pytest.raises(ConfigError, match="the seed is"):
        generate.draw(loaded.prior, PLAIN, seed, 1)


def test_counts_and_grids(loaded):
    with pytest.raises(ConfigError, match="draw 1 to 16 at once"):
        generate.draw(loaded.prior, PLAIN, 0, 17)
    assert [generate.columns_of(n) for n in (1, 5, 6, 10, 16, 17)] == [1, 5, 5, 5, 4, 5]
