"""The rate-distortion benchmark: delta rates against what can be worked out by hand, headers against real files."""

import io
import json
import math

import numpy as np
import pytest
from experiments import photos, rate_curves
from experiments.bjontegaard import bd_rate
from experiments.headers import avif_payload, jpeg_payload
from PIL import Image, features
from skimage.data import chelsea

from hybridvq.pixels import mse

CURVE = [(0.1, 24.0), (0.2, 27.0), (0.45, 29.5), (0.9, 33.0), (1.7, 36.0)]


@pytest.mark.parametrize(
    ("factor", "rates"), [(0.5, None), (1.0, None), (3.0, None), (0.9, (0.25, 1.0)), (1.25, (0.25, 1.0))]
)
def test_a_constant_factor_is_that_percentage(factor, rates):
    other = [(factor * rate, quality) for rate, quality in reversed(CURVE)]
    assert bd_rate(CURVE, other, rates) == pytest.approx(100 * (factor - 1), abs=1e-9)


def test_straight_curves_with_different_slopes():
    """log R = q / 10 against q / 10 + (q - 30) / 20 on 30..40: the mean excess is (40 - 30) / 40."""
    anchor = [(math.exp(q / 10), q) for q in (28, 31, 35, 40)]
    other = [(math.exp(q / 10 + (q - 30) / 20), q) for q in (30, 33, 36, 44)]
    assert bd_rate(anchor, other) == pytest.approx(100 * (math.exp(0.25) - 1))


def test_only_the_stated_rates_count():
    """Twice the bits above 1 bit per pixel, the same below, on a straight curve."""
    anchor = [(2.0**q, q) for q in range(-4, 5)]
    other = [(rate * (2 if q > 0 else 1), q) for rate, q in anchor]
    assert bd_rate(anchor, other, (2**-3, 2**-1)) == pytest.approx(0)
    assert bd_rate(anchor, other) > 20


def test_curves_without_a_common_range():
    assert bd_rate(CURVE, [(rate, quality + 20) for rate, quality in CURVE]) is None
    assert bd_rate(CURVE, CURVE, (3.0, 5.0)) is None


def test_curves_that_overlap_by_less_than_two_decibels_are_not_averaged():
    line = [(1.0, 20.0), (4.0, 30.0)]
    assert bd_rate(line, [(1.0, 28.1), (4.0, 38.1)]) is None
    assert bd_rate(line, [(1.0, 27.9), (4.0, 37.9)]) is not None


def test_a_point_that_costs_more_for_less_is_left_out():
    assert bd_rate(CURVE, [*CURVE, (0.5, 25.0)]) == pytest.approx(0)
    with pytest.raises(ValueError, match="two points"):
        bd_rate(CURVE, [(1.0, 30.0), (2.0, 29.0)])


def saved(side: int, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(chelsea()[:side, :side]).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpegs_headers_do_not_grow_with_the_image(progressive):
    small, large = (saved(side, "JPEG", quality=50, progressive=progressive) for side in (16, 256))
    header = len(large) - jpeg_payload(large)
    assert 500 < header < 900
    if not progressive:
        assert header == len(small) - jpeg_payload(small)
    thumbnail = saved(64, "JPEG", quality=50, progressive=progressive, comment=b"x" * 1000)
    assert jpeg_payload(thumbnail) == jpeg_payload(saved(64, "JPEG", quality=50, progressive=progressive))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avifs_headers():
    data = saved(64, "AVIF", quality=50)
    assert 200 < len(data) - avif_payload(data) < 500


def test_errors_of_pixels():
    a = np.zeros((200, 200, 3), dtype=np.uint8)
    b = np.full_like(a, 51)
    assert mse(a, b) == pytest.approx(0.4**2)
    assert photos.ms_ssim(chelsea(), chelsea()) == pytest.approx(1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(2):
        Image.fromarray(chelsea()[: 180 + i, :200]).save(tmp_path / "in" / f"{i}.png")
    Image.fromarray(chelsea()[:100, :200]).save(tmp_path / "in" / "too-small.png")
    return tmp_path / "in"


def test_the_benchmark_writes_its_page_and_keeps_what_it_has(folder, tmp_path, monkeypatch):
    quick = [photos.Rival("jpeg-420", "JPEG", lambda q: photos.jpeg(q, "4:2:0"), (10, 40, 90))]
    quick += [photos.Rival("jpeg-444", "JPEG, 4:4:4", lambda q: photos.jpeg(q, "4:4:4"), (10, 40, 90))]
    quick += [photos.Rival("jxl", "JPEG XL", lambda q: None, (1,), available=False)]
    monkeypatch.setattr(rate_curves, "RIVALS", quick)
    words = [str(folder), "--out", str(tmp_path / "out")]
    rate_curves.main([*words, "--name", "two cats"])
    rate_curves.main([*words, "--rivals", "jpeg-444"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [curve["codec"] for curve in result["curves"]] == ["jpeg-420", "jpeg-444"]
    assert result["photographs"]["images"] == 2
    [first, *_, last] = result["curves"][0]["points"]
    assert first["rate_bpp"] < last["rate_bpp"]
    assert first["psnr_db"] < last["psnr_db"]
    assert first["payload_rate_bpp"] < first["rate_bpp"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "Two cats: the 2 of them" in page
    assert "| JPEG | +0.0% | +0.0% |" in page
    assert (tmp_path / "out" / "rate.svg").read_bytes().startswith(b"<?xml")
    with pytest.raises(SystemExit, match="other photographs"):
        rate_curves.main([*words, "--limit", "1"])
