import math

import pytest

from hybridvq.report.rate import operating_points, rate_figure
from hybridvq.report.result import gather


def test_points_of_a_rounded_coefficient(run, result_of):
    rounded = [
        {"bits": bits, "test_mse": mse, "bits_per_position": 3.0 + bits, "entropy_bits_per_position": 2.0 + bits}
        for bits, mse in ((8, 0.04), (4, 0.4))
    ]
    runs = [
        run("a", "healthy", seed, bits_per_position=35.0, rate_bpp=35 / 16, gains={"rounded": rounded})
        for seed in (0, 1)
    ]
    (recipe,) = gather(result_of(runs))
    trained, eight, four = operating_points(recipe)
    assert trained.raw_bpp == pytest.approx(35 / 16)
    assert (eight.raw_bpp, eight.entropy_bpp) == pytest.approx((11 / 16, 10 / 16))
    assert eight.psnr_db == pytest.approx(20.0)
    assert four.psnr_db == pytest.approx(10.0)


def test_a_recipe_without_an_error_has_no_points(run, result_of):
    (recipe,) = gather(result_of([run("a", "healthy", test_psnr_db=None)]))
    assert operating_points(recipe) == []


def test_the_figure_draws_every_recipe(run, result_of):
    recipes = gather(result_of([run("a", "healthy"), run("b", "published", rate_bpp=1.0)]))
    left, right = rate_figure(recipes).axes
    drawn = {tuple(line.get_xdata()) for line in left.lines}
    assert drawn == {(3.0 / 16,), (1.0,)}
    assert {tuple(line.get_xdata()) for line in right.lines} == {(2.5 / 16,)}
    assert all(math.isclose(y, 20.0) for line in left.lines for y in line.get_ydata())


def test_rounded_versions_that_lost_too_much_are_not_drawn(run, result_of):
    rounded = [{"bits": bits, "test_mse": mse, "bits_per_position": 3.0 + bits} for bits, mse in ((8, 0.05), (1, 0.4))]
    runs = [run("a", "healthy", bits_per_position=35.0, rate_bpp=35 / 16, gains={"rounded": rounded})]
    left, _ = rate_figure(gather(result_of(runs))).axes
    assert {len(line.get_xdata()) for line in left.lines} == {2, 1}
    assert min(y for line in left.lines for y in line.get_ydata()) > 17.0
