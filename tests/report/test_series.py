import numpy as np
import pytest

from hybridvq.report.result import gather
from hybridvq.report.series import Band, curve_band, smooth_values, thin, usage_band


@pytest.fixture
def recipe(run, result_of):
    """Two seeds; the second stopped after the first test."""
    short = {"test_step": [50], "test_mse": [0.07]}
    return gather(result_of([run("a", "healthy", 0), run("a", "healthy", 1, curve=short)]))[0]


def test_a_band_covers_the_steps_that_all_seeds_share(recipe):
    band = curve_band(recipe, "test_step", "test_mse")
    assert band.x.tolist() == [50]
    assert (band.mean[0], band.low[0], band.high[0]) == (pytest.approx(0.06), 0.05, 0.07)


def test_a_step_without_any_value_is_nan(run, result_of):
    curve = {"test_step": [1, 2, 2], "test_mse": [None, 0.5, 0.6]}
    band = curve_band(gather(result_of([run("a", "healthy", curve=curve)]))[0], "test_step", "test_mse")
    assert np.isnan(band.mean[0])
    assert band.mean[1] == 0.5


def test_no_curve(run, result_of):
    assert curve_band(gather(result_of([run("a", "healthy", curve=None)]))[0], "step", "train_mse") is None


def test_smoothing_keeps_a_constant_up_to_its_ends_and_skips_nan():
    values = np.full(200, 3.0)
    values[50] = np.nan
    smooth = smooth_values(values)
    assert np.isnan(smooth[50])
    np.testing.assert_allclose(np.delete(smooth, 50), 3.0)


def test_smoothing_is_a_centred_mean():
    values = np.zeros(200)
    values[100] = 3.0
    np.testing.assert_allclose(smooth_values(values)[98:103], [0, 1, 1, 1, 0])


def test_thinning_keeps_both_ends():
    x = np.arange(5000.0)
    band = thin(Band(x, x, x, x))
    assert band.x.size <= 400
    assert (band.x[0], band.x[-1]) == (0, 4999)


def test_usage_is_ranked_and_dead_codes_are_left_out(recipe):
    band = usage_band(recipe)
    np.testing.assert_allclose(band.mean[:6], np.array([9, 5, 4, 3, 2, 1]) / 24)
    assert np.isnan(band.mean[6:]).all()
    assert band.x.tolist() == list(range(1, 9))
