import json
import math

import numpy as np
import pytest

from hybridvq.errors import ConfigError
from hybridvq.report.result import Stat, by_group, gather, read_result


def test_stat_is_mean_and_sample_deviation():
    values = [0.02, 0.03, 0.07]
    stat = Stat.of(values)
    assert stat.mean == pytest.approx(0.04)
    # ((0.02)^2 + (0.01)^2 + (0.03)^2) / (3 - 1)
    assert stat.sd == pytest.approx(math.sqrt(0.0014 / 2)) == pytest.approx(np.std(values, ddof=1))
    assert stat.complete


def test_one_seed_has_no_deviation():
    assert math.isnan(Stat.of([0.02]).sd)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, "0.1", True])
def test_values_that_are_no_finite_number_are_left_out(missing):
    stat = Stat.of([0.02, missing])
    assert (stat.mean, stat.count, stat.seeds) == (0.02, 1, 2)
    assert not stat.complete


def test_seeds_of_a_recipe_are_gathered_in_order(run, result_of):
    runs = [run("a", "published", seed) for seed in (0, 1)] + [run("b", "healthy")]
    recipes = gather(result_of([runs[0], runs[2], runs[1]]))
    assert [(r.name, [one["seed"] for one in r.runs]) for r in recipes] == [("a", [0, 1]), ("b", [0])]


def test_the_reference_group_comes_last(run, result_of):
    runs = [run("identity", "continuous reference"), run("a", "healthy"), run("b", "published")]
    assert list(by_group(gather(result_of(runs)))) == ["healthy", "published", "continuous reference"]


def test_rounded_errors_are_averaged_over_seeds(four_runs, result_of):
    other = json.loads(json.dumps(four_runs[3])) | {"seed": 1}
    for entry in other["gains"]["rounded"]:
        entry["test_mse"] += 0.002
    (recipe,) = gather(result_of([four_runs[3], other]))
    rounded = recipe.rounded()
    assert list(rounded) == [8, 6, 4]
    mse, bits = rounded[6]
    assert (mse.mean, bits.mean) == (pytest.approx(0.0114), 9.0)
    assert mse.sd == pytest.approx(0.002 / math.sqrt(2))


def test_a_missing_result_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match=r"result\.json does not exist; run `hybridvq compare` first"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema": 2, "runs": []}',
        '{"schema": 1}',
        '{"schema": 1, "runs": []}',
        '{"schema": 1, "runs": [3]}',
        '{"schema": 1, "runs": [{"recipe": "a"}]}',
        "[" * 100_000,
        '{"schema": 1, "schema": 1}',
        '{"schema": NaN}',
        '{"schema": 1e999}',
        "9" * 5000,
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ConfigError, match=r"result\.json.*run `hybridvq compare` again"):
        read_result(tmp_path)
