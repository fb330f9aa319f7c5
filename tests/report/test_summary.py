import re

import pytest

from hybridvq.report.result import gather
from hybridvq.report.summary import summary


@pytest.fixture
def text(result_of):
    return lambda runs: " ".join(summary(gather(result_of(runs))))


def test_all_comparisons_of_four_recipes(text, four_runs):
    assert text(four_runs) == (
        "Of the 4 tokenizers trained, “Projected healthy” reconstructs held-out images best: "
        "a test MSE of 0.0100 (PSNR 20.0 dB) at 35.0 bits per position (2.19 bits per pixel). "
        "With its coefficient rounded to 6 bits after training, its test MSE is 0.0104 "
        "at 9.0 bits per position. "
        "At the fewest bits, 3.0 per position, the best is “Vector healthy” with a test MSE of 0.0250. "
        "As published, projecting onto the code divides the test MSE by 2.00 (0.0400 to 0.0200) "
        "and multiplies the bits per position by 11.67 (3.0 to 35.0). "
        "In the healthy setting, projecting onto the code divides the test MSE by 2.50 (0.0250 to 0.0100) "
        "and multiplies the bits per position by 11.67 (3.0 to 35.0). "
        "For VQ-VAE, the healthy setting in place of the published one divides the test MSE by 1.60 (0.0400 to 0.0250) "
        "at the same 3.0 bits per position. It uses 8 of 8 codes instead of 2 of 8. "
        "Where a recipe was trained once only, a small difference may be chance."
    )


def test_every_sentence_with_an_error_states_bits(text, four_runs, run):
    identity = run("identity", "continuous reference", test_mse=0.001, bits_per_position=2048.0)
    for sentence in re.split(r"(?<=[a-z)])\. ", text([*four_runs, identity])):
        assert "MSE" not in sentence or "bits" in sentence


def test_one_recipe(text, run):
    assert text([run("vector-healthy", "healthy")]) == (
        "“Vector healthy” reconstructs held-out images with a test MSE of 0.0400 (PSNR 20.0 dB) "
        "at 3.0 bits per position (0.188 bits per pixel)."
    )


def test_only_a_reference(text, run):
    alone = run("identity", "continuous reference", bits_per_position=2048.0)
    assert text([alone]) == "Without a codebook, “Identity” reaches a test MSE of 0.0400 at 2,048 bits per position."


def test_a_worse_result_is_not_called_better(text, run):
    runs = [
        run("vector-published", "published", test_mse=0.02),
        run("projected-published", "published", test_mse=0.03),
    ]
    assert "projecting onto the code multiplies the test MSE by 1.50 (0.0200 to 0.0300)" in text(runs)


def test_a_difference_below_one_percent_is_no_difference(text, run):
    runs = [
        run("vector-published", "published", test_mse=0.0200),
        run("vector-healthy", "healthy", test_mse=0.0199),
    ]
    assert "changes the test MSE by less than 1% (0.0200 to 0.0199) at the same 3.0 bits" in text(runs)


def test_a_difference_within_the_spread_of_seeds_says_so(text, run):
    runs = [run("vector-published", "published", seed, test_mse=mse) for seed, mse in enumerate((0.02, 0.03))]
    runs += [run("vector-healthy", "healthy", seed, test_mse=mse) for seed, mse in enumerate((0.019, 0.029))]
    assert "(0.0250 to 0.0240, less than the spread between seeds)" in text(runs)


def test_a_recipe_with_a_diverged_seed_is_not_compared(text, run):
    runs = [
        run("vector-healthy", "healthy"),
        run("fsq-healthy", "healthy", 0, test_mse=0.001),
        run("fsq-healthy", "healthy", 1, test_mse=None),
    ]
    assert text(runs).startswith("“Vector healthy” reconstructs")
    assert "Not compared, because the error or bits of a seed are missing: “Fsq healthy”." in text(runs)


def test_no_claim_without_bits(text, four_runs):
    without = [run | {"bits_per_position": None} for run in four_runs]
    assert "divides" not in text(without)
    assert "nothing can be compared" in text(without)


def test_unequal_steps_are_pointed_out(text, four_runs):
    four_runs[0]["steps"] = 50
    assert "Not every run was trained for the same number of steps" in text(four_runs)


def test_coarse_rounding_is_reported_as_it_is(text, four_runs):
    """No width keeps the error within 5%: the widest is quoted, not hidden."""
    for entry in four_runs[3]["gains"]["rounded"]:
        entry["test_mse"] = 0.5
    assert "rounded to 8 bits after training, its test MSE is 0.500 at 11.0 bits per position" in text(four_runs)


def test_a_coefficient_that_is_not_needed_is_said_to_be_set_to_one(four_runs, text):
    for entry in four_runs[3]["gains"]["rounded"]:
        entry["test_mse"] = 0.01
    four_runs[3]["gains"]["rounded"].append({"bits": 0, "test_mse": 0.01, "bits_per_position": 3.0})
    assert "With its coefficient set to 1 after training, its test MSE is 0.0100 at 3.0 bits" in text(four_runs)
