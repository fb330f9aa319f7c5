import pytest
import torch

import tiny
from hybridvq import TrainingError, train
from hybridvq.quantizers import Tokens
from hybridvq.training import watch
from hybridvq.training.watch import Watch


def healthy(size=64):
    return Tokens(codes=torch.arange(size).view(1, 1, 8, -1), gains=torch.linspace(0.5, 2, size).view(1, 1, 8, -1))


def watch_losses(losses, tokens=None, size=64):
    watch = Watch(size)
    return [text for step, mse in enumerate(losses, 1) for text in watch.look(step, mse, tokens or healthy())]


def test_a_smooth_run_says_nothing():
    assert watch_losses([1 / (1 + step / 100) for step in range(1000)]) == []


def test_a_spike_is_named_with_its_step_and_size():
    losses = [0.02] * 400
    losses[300] = 0.08
    losses[350] = 0.05
    (text,) = watch_losses(losses)
    assert text.startswith("step 301: loss spike")
    assert "4.0 times the median" in text
    assert "learning_rate" in text


def test_the_first_steps_may_fall_as_they_like():
    assert watch_losses([1.0] * 150 + [5.0] + [1.0] * 40) == []


def test_the_same_thing_is_said_once_in_a_thousand_steps():
    losses = [0.02 if step % 150 else 0.1 for step in range(1, 2301)]
    assert [text.split(":")[0] for text in watch_losses(losses)] == ["step 300", "step 1,350"]


def test_a_collapse_counts_the_codes():
    few = Tokens(codes=torch.arange(4).repeat(16).view(1, 1, 8, 8))
    (text,) = watch_losses([0.02] * 250, few)
    assert "uses 4 of 64 codes" in text
    assert "restart_every" in text
    assert watch_losses([0.02] * 250, few, size=4) == []


def test_a_collapse_of_published_settings_is_expected():
    few = Tokens(codes=torch.arange(4).repeat(16).view(1, 1, 8, 8))
    (text,) = Watch(64, as_published=True).look(200, 0.02, few)
    assert text == "step 200: codebook collapse, expected of codes trained as published: 4 of 64 in use"


def test_a_small_batch_is_not_a_collapse():
    assert watch_losses([0.02] * 250, healthy(64), size=8192) == []


@pytest.mark.parametrize(("largest", "said"), [(9.0, False), (40.0, True)])
def test_a_runaway_gain_is_compared_with_the_median(largest, said):
    gains = torch.ones(1, 1, 8, 8)
    gains[0, 0, 3, 3] = -largest
    found = watch_losses([0.02] * 250, Tokens(codes=healthy().codes, gains=gains))
    assert bool(found) == said
    if said:
        assert "40 times the median" in found[0]


def test_gains_that_are_not_read_do_not_count():
    gains = torch.ones(1, 1, 8, 8)
    gains[0, 0, 0, 0] = 1e6
    passed = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    passed[0, 0, 0, 0] = False
    assert watch_losses([0.02] * 250, Tokens(codes=healthy().codes, gains=gains, passed=passed)) == []


@pytest.fixture
def collapsing(monkeypatch):
    """A recipe whose every batch counts as a collapse, which is looked for at step 8."""
    for name, value in (("CHECK_EVERY", 8), ("SPIKE_START", 8), ("COLLAPSED", 2.0)):
        monkeypatch.setattr(watch, name, value)
    return tiny.recipe(steps=10)


def test_a_run_warns_and_goes_on(tmp_path, capfd, collapsing):
    _, history = train(collapsing, tiny.images(), tiny.test_batches(), tmp_path / "run")
    assert len(history.train_mse) == 10
    (text,) = history.warnings
    assert text.startswith("step 8: codebook collapse")
    assert f"warning: {text}" in capfd.readouterr().err


def test_the_published_recipe_says_that_it_collapses_as_expected(tmp_path, collapsing):
    collapsing.group = "published"
    _, history = train(collapsing, tiny.images(), tiny.test_batches(), tmp_path / "run")
    assert [text.split(":")[1] for text in history.warnings] == [
        " codebook collapse, expected of codes trained as published"
    ]


def test_a_run_can_be_told_to_stop(tmp_path, collapsing):
    with pytest.raises(TrainingError, match=r"stopped at step 8: codebook collapse.*--watch warn continues"):
        train(collapsing, tiny.images(), tiny.test_batches(), tmp_path / "run", watch="stop")


def test_a_run_can_be_left_alone(tmp_path, capfd, collapsing):
    _, history = train(collapsing, tiny.images(), tiny.test_batches(), tmp_path / "run", watch="off")
    assert history.warnings == []
    assert capfd.readouterr().err == ""


def test_a_short_run_is_looked_at_when_it_ends(tmp_path, collapsing):
    collapsing.training.steps = 5
    _, history = train(collapsing, tiny.images(), tiny.test_batches(), tmp_path / "run")
    assert history.warnings[0].startswith("step 5: codebook collapse")
