import sys
from itertools import pairwise

import numpy as np
import pytest

from hybridvq.data import PHOTOGRAPHS, Images, open_images, photo_files, read_image
from hybridvq.data.photos import PhotoTiles, load_photograph
from hybridvq.errors import ConfigError, DataError, MissingExtraError


def tile_counts(shapes: list[tuple[int, int]], size: int) -> int:
    return sum((height // size) * (width // size) for height, width in shapes)


@pytest.fixture(scope="module")
def test_photos() -> Images:
    return open_images("photos", "test", size=64)


def test_no_photograph_is_on_both_sides() -> None:
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
    assert len(PHOTOGRAPHS["train"]) + len(PHOTOGRAPHS["test"]) == 7


def test_length_is_the_number_of_tiles(test_photos: Images) -> None:
    # chelsea, coffee, flower
    assert len(test_photos) == tile_counts([(300, 451), (400, 600), (427, 640)], 64)
    assert (test_photos.name, test_photos.split, test_photos.size) == ("photos", "test", 64)
    assert test_photos.skipped == []


def test_tiles_cover_distinct_places(test_photos: Images) -> None:
    assert isinstance(test_photos, PhotoTiles)
    places = {(id(test_photos.pixels(i)), test_photos.origin(i, 0, 0)) for i in range(len(test_photos))}
    assert len(places) == len(test_photos)
    assert all(top % 64 == 0 and left % 64 == 0 for _, (top, left) in places)


def test_first_images_take_turns_among_photographs(test_photos: Images) -> None:
    owners = [id(test_photos.pixels(i)) for i in range(12)]
    assert len(set(owners)) == 3
    assert all(a != b for a, b in pairwise(owners))


def test_deterministic_crop_is_the_tile(test_photos: Images) -> None:
    top, left = test_photos.origin(5, 0, 0)
    tile = test_photos.pixels(5)[top : top + 64, left : left + 64]
    np.testing.assert_array_equal(test_photos.crop(5, None), tile)


def test_random_crops_lie_anywhere_in_the_same_photograph(test_photos: Images) -> None:
    top = test_photos.crop_at(0, np.array([0.0, 0.0, 0.0]))
    bottom = test_photos.crop_at(0, np.array([0.9999, 0.9999, 0.0]))
    mirrored = test_photos.crop_at(0, np.array([0.0, 0.0, 0.5]))
    photograph = test_photos.pixels(0)
    np.testing.assert_array_equal(top, photograph[:64, :64])
    np.testing.assert_array_equal(bottom, photograph[-64:, -64:])
    np.testing.assert_array_equal(mirrored, photograph[:64, :64][:, ::-1])


def test_crop_draws_from_the_generator(test_photos: Images) -> None:
    crops = [test_photos.crop(3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert crops[0].shape == (64, 64, 3)
    assert crops[0].dtype == np.uint8
    np.testing.assert_array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


def test_crop_out_of_range(test_photos: Images) -> None:
    for index in (-1, len(test_photos)):
        with pytest.raises(IndexError):
            test_photos.crop(index, None)


def test_fingerprint_tells_split_size_and_limit(test_photos: Images) -> None:
    assert open_images("photos", "test", size=64).fingerprint == test_photos.fingerprint
    others = [
        open_images("photos", "train", size=64),
        open_images("photos", "test", size=32),
        open_images("photos", "test", size=64, limit=5),
    ]
    assert len({test_photos.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert len(others[2]) == 5


def test_photographs_smaller_than_the_size_are_left_out() -> None:
    assert len(open_images("photos", "test", size=420)) == 1
    with pytest.raises(ConfigError, match=r"size 500 exceeds the test photographs .* at most 427"):
        open_images("photos", "test", size=500)


def test_a_photograph_no_longer_shipped_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import skimage.data

    def gone() -> None:
        raise ModuleNotFoundError("pooch")

    monkeypatch.setattr(skimage.data, "coffee", gone)
    with pytest.raises(DataError, match="'coffee' cannot be loaded from scikit-image"):
        open_images("photos", "test", size=64)


def test_the_files_are_the_photographs() -> None:
    files = photo_files()
    assert [path.stem for path in files] == [*PHOTOGRAPHS["train"], *PHOTOGRAPHS["test"]]
    loaded = {path.stem: read_image(path) for path in files}
    for split in ("train", "test"):
        tiles = PhotoTiles(split, 64)
        for number, name in enumerate(PHOTOGRAPHS[split]):
            np.testing.assert_array_equal(tiles.pixels(number), loaded[name])


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PHOTOGRAPHS, "test", ("dodo",))
    with pytest.raises(DataError, match=r"'dodo' cannot be loaded from scikit-image .no such file.; reinstall"):
        photo_files()


@pytest.mark.parametrize("name", ["skimage", "skimage.data"])
def test_photographs_that_come_with_an_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"this needs skimage, .* pip install '.+\[train\]'"):
        load_photograph("chelsea")
