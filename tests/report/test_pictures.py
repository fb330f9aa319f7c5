import io
import math

import numpy as np
import pytest
from PIL import Image

from hybridvq.report.pictures import Pictures, load_pictures, psnr_db, to_png
from hybridvq.report.result import gather, read_result


@pytest.fixture
def load(write_folder):
    def load(runs):
        folder = write_folder(runs)
        result = read_result(folder)
        return load_pictures(folder, result, gather(result))

    return load


def test_psnr_is_on_the_scale_from_minus_one_to_one():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr_db(black, white) == pytest.approx(0.0)
    assert psnr_db(black, black) == math.inf
    step = np.full_like(black, 51)
    assert psnr_db(black, step) == pytest.approx(10 * math.log10(4 / 0.4**2))


def test_at_most_eight_originals_and_the_first_seed(load, run):
    pictures = load([run("a", "healthy", 0), run("a", "healthy", 1)])
    assert isinstance(pictures, Pictures)
    assert pictures.originals.shape == (8, 8, 8, 3)
    assert len(pictures.columns) == 1
    assert pictures.zoom == 14


def test_error_maps_share_one_scale(load, run):
    pictures = load([run("a", "healthy")])
    assert pictures.scale == 24
    errors = pictures.error_map(pictures.columns[0], 0)
    assert errors.shape == (8, 8, 3)
    assert errors.dtype == np.uint8


def test_a_png_holds_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_png(image)))), image)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b"no array"), "cannot be read"),
        (lambda path: np.save(path, np.zeros((9, 8, 8, 3))), "not an array"),
        (lambda path: np.save(path, np.zeros((9, 8, 8, 1), np.uint8)), "three colors"),
    ],
)
def test_unusable_originals_are_explained(write_folder, run, damage, words):
    folder = write_folder([run("a", "healthy")])
    damage(folder / "originals.npy")
    result = read_result(folder)
    message = load_pictures(folder, result, gather(result))
    assert message.startswith("No pictures: ")
    assert words in message


def test_a_column_that_does_not_fit_is_explained(write_folder, run):
    folder = write_folder([run("a", "healthy"), run("b", "healthy", images=None)])
    np.save(folder / "runs/a-seed0/reconstructions.npy", np.zeros((9, 4, 4, 3), np.uint8))
    result = read_result(folder)
    first, second = load_pictures(folder, result, gather(result)).columns
    assert first.problem == "Its reconstructions are (9, 4, 4, 3), not (9, 8, 8, 3)."
    assert second.problem == "Its reconstructions were not saved."
