"""The page about pictures that are not ordinary photographs says what was measured."""

import numpy as np
import pytest
from experiments import other_pictures, other_pictures_page

from codec import hybrids
from hybridvq.documents import read_json


def point(own, jpeg, webp, webp_rate=0.5):
    shown = {"own": (0.5, own), "JPEG": (0.52, jpeg), "WebP": (webp_rate, webp)}
    cells = {key: {"rate_bpp": rate, "psnr_db": db} for key, (rate, db) in shown.items()}
    return {"picture": "a page", "height": 20, "width": 30, "quality": 50} | cells


def test_the_page_counts_who_is_ahead_and_shows_other_sizes():
    result = {"model": "m", "hardware": {"name": "a processor"}, "enlarged": False}
    text = other_pictures_page.page(result | {"points": [point(30, 29, 31), point(30, 29, 28, 0.6), point(20, 25, 24)]})
    assert "| a page | 20 x 30 | 50 | 0.500 | 30.00 | 29.00 | 28.00 (0.600) |" in text
    assert "Of 1 pictures at 3 qualities, `m` has the higher PSNR than JPEG 2 times and than WebP\n1 times" in text
    assert "Enlarged" not in text


def test_pictures_are_measured_at_about_the_same_bytes(tmp_path, monkeypatch):
    model = hybrids.save(tmp_path / "model")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    monkeypatch.setattr(other_pictures, "pictures", lambda photographs: [("noise", noise)])
    other_pictures.main(["--model", str(model), "--out", str(tmp_path / "out")])
    points = read_json(tmp_path / "out" / "result.json")["points"]
    assert [p["quality"] for p in points] == list(other_pictures.QUALITIES)
    rates = [p["own"]["rate_bpp"] for p in points]
    assert rates == sorted(rates)
    page = (tmp_path / "out" / "README.md").read_bytes()
    other_pictures.main(["--page", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "README.md").read_bytes() == page


def test_every_picture_is_8_bit_color():
    for name, pixels in other_pictures.pictures(None):
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3), name
        assert pixels.min() < pixels.max(), name


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(other_pictures, "QUALITIES", (1, 50, 100))
