"""Which pictures a report shows: images with something in them, and whole photographs at equal bytes."""

import numpy as np
import pytest
from PIL import Image

import tiny
from hybridvq.comparison import models
from hybridvq.comparison.run import save_array
from hybridvq.comparison.shown import choose_images, read_chosen
from hybridvq.data import EvalBatches, open_images
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse


@pytest.fixture
def images(tmp_path):
    """Images of 8 x 8 pixels, as a data set, from the spread of their gray levels."""

    def build(spreads):
        for number, spread in enumerate(spreads):
            pixels = np.full((8, 8, 3), 128, np.uint8)
            pixels[:4] += np.uint8(spread)
            for side in ("train", "test"):
                (tmp_path / side).mkdir(exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / side / f"{number:03}.png")
        return open_images(tmp_path, "test", size=8)

    return build


def test_images_with_something_in_them_are_shown(images):
    spreads = np.random.default_rng(0).permutation(100)[:40]
    shown = choose_images(images(spreads))
    found = np.sort(((shown.amax((1, 2, 3)) - shown.amin((1, 2, 3))) * 127.5).round().numpy())
    assert len(found) == 8
    assert found[-1] == spreads.max(), "the most varied of all is among them"
    assert found.mean() > spreads[:8].mean()


def test_few_images_are_all_shown(images):
    assert len(choose_images(images([0, 3, 0]))) == 3


def test_no_blank_crop_of_the_photographs_is_shown():
    photographs = tiny.images("test", 64)
    first, chosen = (x.mean(1).std((1, 2)) for x in (EvalBatches(photographs, 8, 8)[0], choose_images(photographs)))
    assert chosen.min() > first.median()
    assert chosen.mean() > 1.5 * first.mean()


def test_what_is_read_is_what_was_chosen(tmp_path):
    x = choose_images(tiny.images("test", 16))
    save_array(tmp_path / "originals.npy", x)
    assert np.array_equal(read_chosen(tmp_path), x)


def test_photographs_are_shown_at_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "PHOTOGRAPHS", {"test": ("chelsea",)})
    [shown] = models.show_models(["photos", "photos-vq"], tmp_path, "cpu")
    assert (shown["name"], shown["width"], shown["height"]) == ("chelsea", 451, 300)
    hybrid, vector, jpeg = shown["files"]
    assert [hybrid["title"], vector["title"]] == ["photos, hybrid", "photos-vq"]
    assert jpeg["title"].startswith("JPEG, quality ")
    assert 0.9 * vector["bytes"] < hybrid["bytes"] <= vector["bytes"]
    assert jpeg["bytes"] == pytest.approx(vector["bytes"], rel=0.2)
    original = np.asarray(Image.open(tmp_path / shown["original"]))
    for file in shown["files"]:
        picture = np.asarray(Image.open(tmp_path / file["image"]))
        assert file["psnr_db"] == pytest.approx(psnr_db(mse(original, picture)))
        assert file["rate_bpp"] == pytest.approx(8 * file["bytes"] / (451 * 300))
