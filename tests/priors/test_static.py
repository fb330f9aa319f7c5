import numpy as np
import pytest
import torch

from hybridvq import ConfigError, StaticPrior
from hybridvq.quantizers import Tokens
from priors.spaces import space, tokens


def fitted(kind, gain=None, stages=2):
    of = space(kind, stages)
    batches = [tokens(of, 4, seed=seed) for seed in range(3)]
    made = StaticPrior(of, (3, 4), gain=gain)
    made.fit(batches)
    codes = torch.cat([batch.codes for batch in batches]).numpy()
    gains = None if kind == "none" else torch.cat([batch.gains for batch in batches]).numpy()
    return made, codes, gains


def test_codes_are_frequencies_and_a_half():
    made, codes, _ = fitted("none")
    for s in (0, 1):
        counts = np.bincount(codes[:, s].ravel(), minlength=5)
        expected = (counts + 0.5) / (counts.sum() + 2.5)
        np.testing.assert_allclose(made.code_table[s].exp(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["float", "levels"])
def test_gains_are_moments_of_each_code_and_one_gain_more(kind):
    made, codes, gains = fitted(kind, "gaussian")
    for s in (0, 1):
        values = gains[:, s].astype(float) if kind == "float" else made.gain_head.level_values[s].numpy()[gains[:, s]]
        mean, std = values.mean(), values.std()
        for k in range(5):
            own = values[codes[:, s] == k].astype(float)
            first = (own.sum() + mean) / (len(own) + 1)
            second = ((own**2).sum() + std**2 + mean**2) / (len(own) + 1)
            _, mu, log_sigma = made.gain_table[s, k].double().numpy()
            np.testing.assert_allclose(mean + std * mu, first, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(std * (1e-3 + np.exp(log_sigma)), np.sqrt(second - first**2), rtol=1e-4)


def test_levels_are_counts_and_a_share_more():
    made, codes, levels = fitted("levels")
    for s in (0, 1):
        totals = np.bincount(levels[:, s].ravel(), minlength=3) + 0.5
        for k in range(5):
            counts = np.bincount(levels[:, s][codes[:, s] == k], minlength=3)
            expected = (counts + totals / totals.sum()) / (counts.sum() + 1)
            np.testing.assert_allclose(made.gain_table[s, k].exp(), expected, rtol=1e-5)


def test_a_code_that_never_comes_has_the_gains_of_its_stage():
    of = space("float")
    made, given = StaticPrior(of, (3, 4)), tokens(of, 20)
    made.fit([Tokens(codes=given.codes.clamp(max=3), gains=given.gains)])
    _, mean, log_deviation = made.gain_table[0, 4]
    assert mean.item() == pytest.approx(0, abs=1e-5)
    assert log_deviation.exp().item() == pytest.approx(1, abs=2e-3)


def test_fitting_raises_the_likelihood_of_what_it_was_fitted_to():
    for kind, gain in (("none", None), ("levels", "categorical"), ("levels", "gaussian"), ("float", "gaussian")):
        of = space(kind)
        made, given = StaticPrior(of, (3, 4), gain=gain), tokens(of, 50)
        before = made.log_prob(given).mean()
        made.fit([given])
        assert made.log_prob(given).mean() > before + 0.1


def test_gains_that_do_not_vary():
    of = space("float")
    made = StaticPrior(of, (3, 4))
    given = Tokens(codes=tokens(of).codes, gains=torch.full((3, 1, 3, 4), 2.5))
    made.fit([given])
    assert made.log_prob(given).isfinite().all()
    torch.testing.assert_close(made.sample(2, (3, 4), temperature=0).gains, torch.full((2, 1, 3, 4), 2.5))


def test_errors():
    for arguments, message in (
        ({"classes": 3}, "classes is 3, but static tables know no labels"),
        ({"gain": "mixture"}, "static tables hold no 'mixture'"),
    ):
        with pytest.raises(ConfigError, match=message):
            StaticPrior(space(), (3, 4), **arguments)
    with pytest.raises(ConfigError, match="there are no tokens to fit the static prior to"):
        StaticPrior(space(), (3, 4)).fit([])
