import inspect
import math
import re

import numpy as np
import pytest

from hybridvq import ConfigError
from hybridvq.quantizers import QUANTIZERS
from hybridvq.settings import CodecSettings, DataSettings, ModelSettings, Plan, PriorTrainingSettings, TrainingSettings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("eval_every", 0),
        ("checkpoint_every", -1),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("warmup", -0.1),
        ("warmup", 0.9),
        ("decay", math.nan),
        ("freeze_norm", -0.1),
        ("freeze_norm", 1.1),
        ("freeze_norm", math.nan),
        ("precision", "16"),
        ("zoom", 0.5),
        ("zoom", math.nan),
        ("shrink", 0.5),
        ("shrink", math.inf),
        ("average", 1.0),
        ("average", -0.1),
        ("average", math.nan),
        ("clip", -1.0),
        ("clip", math.nan),
        ("zoom", 1e308),
        ("decay", 5),
        ("decay", "0.2"),
        ("learning_rate", 1e308),
        ("learning_rate", None),
        ("steps", 10**12),
        ("steps", True),
        ("steps", 3.0),
        ("batch_size", 10**9),
        ("freeze_norm", True),
    ],
)
def test_training_settings_are_checked(key, value):
    with pytest.raises(ConfigError, match=f"training.{key}"):
        TrainingSettings(**{key: value})


@pytest.mark.parametrize(
    ("kind", "key", "value", "need"),
    [
        (PriorTrainingSettings, "weight_decay", math.nan, "a number"),
        (PriorTrainingSettings, "patience", -1, "at least 0"),
        (PriorTrainingSettings, "learning_rate", math.inf, "at most 10"),
        (ModelSettings, "dim", 10**9, "at most 65,536"),
        (ModelSettings, "dim", True, "a whole number"),
        (ModelSettings, "downsampling", 4.0, "a whole number"),
        (DataSettings, "size", 0, "at least 1"),
        (DataSettings, "size", 10**9, "at most 16,384"),
        (DataSettings, "shuffle_buffer", 0, "at least 1"),
        (DataSettings, "workers", -1, "at least 0"),
        (CodecSettings, "rate_weight", 1e308, "at most 1,000,000,000"),
        (CodecSettings, "rate_weight", math.nan, "a number"),
        (CodecSettings, "rate_weight", False, "a number"),
        (CodecSettings, "stages", 1.5, "a whole number"),
        (CodecSettings, "target_psnr", math.inf, "at most 10,000"),
    ],
)
def test_numbers_are_checked_where_they_come_in(kind, key, value, need):
    with pytest.raises(ConfigError, match=f"{key} is {re.escape(repr(value))}; it must be {need}$"):
        kind(**{key: value})


def test_numpy_numbers_are_numbers():
    assert TrainingSettings(steps=np.int64(3), decay=np.float32(0)).steps == 3


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, True])
def test_the_seeds_of_a_plan_are_checked(seed):
    with pytest.raises(ConfigError, match=f"seeds is {seed}; it must be"):
        Plan(recipes=["vector"], seeds=[0, seed])


def test_learning_rate_rises_stays_and_falls():
    settings = TrainingSettings(steps=100, warmup=0.1, decay=0.2)
    factors = [settings.learning_rate_factor(step) for step in range(100)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert set(factors[9:81]) == {1.0}
    np.testing.assert_allclose(factors[80:], np.arange(20, 0, -1) / 20)
    assert min(factors) > 0


def test_learning_rate_without_warmup_or_decay():
    settings = TrainingSettings(steps=10, warmup=0, decay=0)
    assert {settings.learning_rate_factor(step) for step in range(10)} == {1.0}


@pytest.mark.parametrize(
    ("steps", "share", "first", "rise"),
    [(3000, 0.0, 3000, 300), (3000, 0.5, 1500, 300), (3000, 0.9, 300, 300), (3000, 1.0, 300, 300)]
    + [(4000, 0.25, 3000, 250), (600, 0.9, 300, 75), (300, 0.9, 300, 300)],
)
def test_norm_goes_over_to_its_averages_for_a_share_of_the_steps_but_not_before_it_has_some(steps, share, first, rise):
    settings = TrainingSettings(steps=steps, freeze_norm=share)
    shares = [settings.norm_share(step) for step in range(steps)]
    assert shares[: first + 1] == [0.0] * min(first + 1, steps)
    assert shares[first + rise :] == [1.0] * max(0, steps - first - rise)
    assert shares[first + rise // 25 * 5 :][:1] == ([rise // 25 * 5 / rise] if first < steps else [])


@pytest.mark.parametrize("key", ["steps", "batch_size", "eval_images", "jobs", "eval_every"])
def test_plans_are_checked(key):
    with pytest.raises(ConfigError, match=f"{key} is -1"):
        Plan(recipes=["vector"], **{key: -1})


def test_plans_need_recipes_and_seeds():
    with pytest.raises(ConfigError, match="compare needs recipes"):
        Plan()
    with pytest.raises(ConfigError, match="at least one seed"):
        Plan(recipes=["vector"], seeds=[])


def test_the_runs_of_a_plan():
    plan = Plan(recipes=["a", "b"], seeds=[3, 4], first_seed_only=["c"])
    assert plan.runs() == [("a", 3), ("a", 4), ("b", 3), ("b", 4), ("c", 3)]


def test_what_every_recipe_is_given():
    assert Plan(recipes=["a"], steps=100, batch_size=7).recipe_overrides() == {
        "training.steps": 100,
        "training.batch_size": 7,
        "training.eval_every": 5,
    }
    given = Plan(recipes=["a"], steps=7, eval_every=3, overrides={"model.dim": 8}).recipe_overrides()
    assert (given["training.eval_every"], given["model.dim"]) == (3, 8)
    assert Plan(recipes=["a"], steps=7).recipe_overrides()["training.eval_every"] == 1


def test_overrides_may_be_nested():
    plan = Plan(recipes=["a"], overrides={"model": {"dim": 8, "options.beta": 1}, "model.options": {"model": {}}})
    given = plan.recipe_overrides()
    assert (given["model.dim"], given["model.options.beta"], given["model.options"]) == (8, 1, {"model": {}})
    assert "model" not in given


def test_the_help_names_every_quantizer_and_option():
    words = set(re.findall(r"[\w-]+", ModelSettings.__doc__))
    for name, quantizer in QUANTIZERS.items():
        assert {name, *inspect.signature(quantizer).parameters} <= words | {"dim"}
