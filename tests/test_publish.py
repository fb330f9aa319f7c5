"""The pages of comparisons: rivals at equal bits, the crossing, and the commands they name."""

from typing import Any

import pytest
from experiments import comparison_page, publish

from hybridvq.report.result import RecipeRuns


def recipe(name: str, bits: float, mse: float, **more: Any) -> RecipeRuns:
    run = {"entropy_bits_per_position": bits, "test_mse": mse, "title": name, **more}
    return RecipeRuns(name, name, more.get("group", ""), "", (run,))


def test_rivals_are_met_at_equal_bits():
    fsq = [recipe("fsq-8", 8.0, 0.04), recipe("fsq-10", 10.0, 0.01)]
    ours = [recipe("gain-shape", 9.0, 0.03, contextual_bits_per_position=8.5), recipe("gain-shape-more", 11.0, 0.001)]
    others = [recipe("vector-1", 8.0, 0.05), recipe("vector-published", 12.0, 0.9, group="published")]
    text = comparison_page.equal_bits([*fsq, *ours, *others])
    assert "| recipe | test MSE | bits, entropy | over FSQ | bits, contextual coder | over FSQ |" in text
    assert "| gain-shape | 0.0300 | 9.00 | 1.50 or more | 8.50 | – |" in text, "sqrt(0.04 0.01) is 0.02"
    assert "| gain-shape-more | 0.0010 | 11.00 | – | – | – |" in text
    assert comparison_page.equal_bits([fsq[0], *ours]) == "", "one size is no curve"


@pytest.mark.parametrize(
    ("projected", "said"),
    [
        (
            [0.4, 0.3, 0.25, 0.05],
            "at 1 of 4 measurements, first at step 40, and at every one after step 30.",
        ),
        (
            [0.4, 0.1, 0.25, 0.05],
            "at 2 of 4 measurements, first at step 20, and at every one after step 30.",
        ),
        ([0.1, 0.1, 0.1, 0.05], "at 4 of 4 measurements, first at step 10, and at every one after step 0."),
        ([0.3, 0.1, 0.25, 0.15], "at 1 of 4 measurements, first at step 20, but not at the end."),
        ([0.4, 0.3, 0.25, 0.15], "at 0 of 4 measurements: it never crosses."),
    ],
)
def test_where_the_published_pair_crosses(projected, said):
    assert comparison_page.who_is_below([10, 20, 30, 40], [0.3, 0.2, 0.2, 0.1], projected).endswith(said)


def test_the_page_of_the_published_pair():
    def along(name, mse):
        curve = {"test_step": [10, 20, 30], "test_mse": mse, "test_codes_used": [1, 2, 3]}
        return recipe(name, 9.0, mse[-1], curve=curve, max_loss_spike=1.2)

    pair = [along("vector-published", [0.3, 0.2, 0.25]), along("projected-published", [0.4, 0.1, 0.05])]
    page = comparison_page.crossing(pair)
    assert "| 20 | 0.2000 | 2 | 0.1000 | 2 |" in page
    assert "| 30 | 0.2500 | 3 | 0.0500 | 3 |" in page
    assert "as a ratio: 1.25 (vector-published) and 0.50 (projected-published)." in page
    assert comparison_page.crossing(pair[:1]) == ""


def test_every_plan_names_its_command():
    plans = [plan for plan in (publish.ROOT / "experiments" / "plans").glob("*.yaml") if plan.stem != "priors"]
    assert plans
    for plan in plans:
        command = publish.command_of(plan.stem)
        assert command.endswith(f"--config experiments/plans/{plan.name} --data PATH_OR_HUB_ID"), plan


def result(*runs, steps=10, fingerprint="a"):
    made = [{"recipe": name, "seed": seed, "test_mse": mse} for name, seed, mse in runs]
    return {"setting": {"steps": steps, "batch_size": 8}, "data": {"fingerprint": fingerprint}, "runs": made}


def test_results_of_the_same_images_and_steps_share_a_page():
    ours, before = result(("a", 0, 0.1), ("b", 0, 0.2)), result(("b", 0, 0.3), ("b", 1, 0.4), ("c", 0, 0.5))
    runs = publish.together([ours, before])["runs"]
    assert [(run["recipe"], run["seed"], run["test_mse"]) for run in runs] == [
        ("a", 0, 0.1),
        ("b", 0, 0.2),
        ("b", 1, 0.4),
        ("c", 0, 0.5),
    ]


def test_results_of_other_images_or_steps_do_not():
    with pytest.raises(ValueError, match="steps is 10 in one result and 20 in another"):
        publish.together([result(("a", 0, 0.1)), result(("b", 0, 0.1), steps=20)])
    with pytest.raises(ValueError, match="different images"):
        publish.together([result(("a", 0, 0.1)), result(("b", 0, 0.1), fingerprint="b")])


def test_the_worst_batches_of_models_that_saw_the_same():
    worst = [[726, 1.37], [1765, 1.3]]
    page = comparison_page.spikes(
        [recipe("a", 9.0, 0.1, worst_batches=worst), recipe("b", 9.0, 0.1, worst_batches=worst)]
    )
    assert "| a | 726 (1.37), 1,765 (1.30) |" in page
    assert comparison_page.spikes([recipe("a", 9.0, 0.1, worst_batches=worst), recipe("b", 9.0, 0.1)]) == ""


def test_a_source_may_name_its_recipes():
    folder = publish.ROOT / "docs" / "results" / "cifar10"
    runs = publish.read_source(f"{folder}:vector,projected")["runs"]
    assert [run["recipe"] for run in runs] == ["vector"] * 3 + ["projected"] * 3
    assert len(publish.read_source(str(folder))["runs"]) == 20
    with pytest.raises(ValueError, match="holds no recipe 'vektor'"):
        publish.read_source(f"{folder}:vektor")
