"""What may be uploaded, and at what size it is worked on."""

import numpy as np
import pytest
from PIL import Image

import tiny
from codec.models import photo
from hybridvq import DataError
from hybridvq.app.picture import PIXELS, SAMPLES, open_picture, sample_picture
from hybridvq.data import PHOTOGRAPHS


def test_samples_are_the_photographs():
    assert sorted(SAMPLES) == sorted(name for names in PHOTOGRAPHS.values() for name in names)
    picture = sample_picture("chelsea")
    np.testing.assert_array_equal(picture.pixels, photo(300, 451))
    assert picture.size == (300, 451)
    with pytest.raises(DataError, match="no sample photograph 'nobody'"):
        sample_picture("nobody")


def test_small_pictures_stay_as_they_are(tmp_path):
    Image.fromarray(photo(30, 41)).save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert (picture.name, picture.note) == ("a.png", "")
    np.testing.assert_array_equal(picture.pixels, photo(30, 41))


@pytest.mark.parametrize("size", [(2000, 1000), (1025, 1024), (5000, 1), (2, 9000)])
def test_large_ones_are_scaled_down(tmp_path, size):
    Image.new("RGB", size, "teal").save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    height, width = picture.size
    assert height * width <= PIXELS
    assert max(picture.size) <= 4096
    assert width / height == pytest.approx(size[0] / size[1], rel=0.25) or min(picture.size) == 1
    assert picture.note == f"Scaled down from {size[0]}x{size[1]} to {width}x{height} pixels, to answer at once."
    assert (picture.pixels == (0, 128, 128)).all()


def test_too_large_ones_are_told_from_their_header(tmp_path):
    """8000x6250 pixels of which none follows: decoding would fail otherwise."""
    Image.new("1", (8000, 6250)).save(tmp_path / "real.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "real.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"^a.png cannot be read as an image \(8000x6250 pixels, over the limit of 40 "):
        open_picture(tmp_path / "a.png")


def test_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("a letter")
    with pytest.raises(DataError, match=r"^a.png cannot be read as an image \(not an image\); choose another file.$"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="no such file"):
        open_picture(tmp_path / "b.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "real.png")
    (tmp_path / "c.png").write_bytes(tiny.huge_png((tmp_path / "real.png").read_bytes()))
    with pytest.raises(DataError, match="megapixels"):
        open_picture(tmp_path / "c.png")
