"""One string → a set of images: which kind of source it names, and how it is opened."""

import os
from pathlib import Path

import numpy as np

from hybridvq.data.folders import is_mini_imagenet, open_folder, open_mini_imagenet
from hybridvq.data.hub import looks_like_hub_id, open_hub
from hybridvq.data.images import Images, RecordImages, Records, Split
from hybridvq.data.listing import list_folder, note_left_out
from hybridvq.data.parquet import open_parquet, parquet_of
from hybridvq.data.photos import PhotoTiles
from hybridvq.errors import ConfigError, DataError
from hybridvq.settings import DataSettings

PHOTOS = "photos"
"""The `data` that names the sample photographs; a folder of that name is './photos'."""


def open_images(
    data: str,
    split: Split,
    *,
    size: int,
    short_side: int | None = None,
    skip_unreadable: bool = False,
    limit: int | None = None,
    workers: int = 0,
) -> Images:
    """Open one split of a data set as square images of `size` pixels per side.

    What `data` may be:

    - 'photos': the sample photographs, at native resolution (see `hybridvq.data.photos`);
    - a folder of images, in class folders or not, with or without train and test subfolders;
    - a folder in the mini-ImageNet layout: `images/`, `train.csv`, `test.csv`;
    - a parquet file, or a folder of them, with a column `image` or `img` of encoded images;
    - the id of a hub data set, such as 'uoft-cs/cifar10'.

    Other than the photographs, images are resized so that their short side is `size`, or at most `short_side`. Sets
    whose pixels fit in 1 GiB are decoded, and so checked, right here; larger ones when an image is asked for.

    Args:
        data: one of the above.
        split: "train" or "test". Sets without a split of their own hold out 10% by a hash.
        size: side of an image, in pixels.
        short_side: the most pixels that the short side keeps, if more than `size`; crops then show a part of an image.
        skip_unreadable: check every image now and list the undecodable in `Images.skipped`.
        limit: use at most so many images, evenly spaced over the split so as to reach every class folder.
        workers: see `Images`.

    Raises:
        ConfigError: split, size, limit or workers cannot be used.
        DataError: the data cannot be found or read.
    """
    check_choice(split, size)
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit of {limit} images must be at least 1; leave it out to use all")
    if workers < 0:
        raise ConfigError(f"the number of workers is {workers}; it must be at least 0")
    images: Images
    if data == PHOTOS:
        images = PhotoTiles(split, size, limit=limit)
    else:
        records, selected = _open_records(data, split)
        if limit is not None and limit < len(selected):
            selected = selected[np.arange(limit) * len(selected) // limit]
        images = RecordImages(records, selected, split, size, short_side=short_side, skip_unreadable=skip_unreadable)
    images.workers = workers
    return images


def open_side(data: DataSettings, split: Split, limit: int | None = None) -> Images:
    """As `open_images`, of the images that settings describe; held-out ones are decoded by the process itself."""
    return open_images(
        data.data,
        split,
        size=data.size,
        short_side=data.short_side,
        skip_unreadable=data.skip_unreadable,
        limit=limit,
        workers=data.workers if split == "train" else 0,
    )


def check_choice(split: str, size: int) -> None:
    """Raise ConfigError unless `split` is known and `size` at least 1."""
    if split not in ("train", "test"):
        raise ConfigError(f"the split '{split}' is not known; choose 'train' or 'test'")
    if size < 1:
        raise ConfigError(f"the image size {size} must be at least 1")


def check_source(data: str) -> None:
    """Raise DataError unless `data` is what `open_images` or `open_stream` could read."""
    if not (data == PHOTOS or (data and Path(os.path.expanduser(data)).exists()) or looks_like_hub_id(data)):
        raise DataError(
            f"'{data}' is not a data set: it is neither an existing path, nor 'photos', nor a hub id such as "
            "'uoft-cs/cifar10'; give a folder of images, a .parquet file or folder, or one of those"
        )


def _open_records(data: str, split: Split) -> tuple[Records, np.ndarray]:
    path = Path(os.path.expanduser(data))
    try:
        if data and path.is_dir():
            return _open_folder(path, split)
        if data and path.exists():
            return _open_file(path, split)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its name and permissions") from None
    check_source(data)
    return open_hub(data, split)


def _open_folder(folder: Path, split: Split) -> tuple[Records, np.ndarray]:
    if is_mini_imagenet(folder):
        return open_mini_imagenet(folder, split)
    found = list_folder(folder)
    if parquet := parquet_of(folder, found):
        return open_parquet(folder, parquet, split)
    if found.tar and not found.images:
        raise DataError(f"{folder} holds tar files, which can only be read as a stream; add --stream")
    note_left_out(folder, "image", found.tar)
    return open_folder(folder, found.images, split)


def _open_file(file: Path, split: Split) -> tuple[Records, np.ndarray]:
    if file.suffix.lower() == ".tar":
        raise DataError(f"{file} is a tar file, which can only be read as a stream; add --stream")
    if file.suffix.lower() != ".parquet":
        raise DataError(f"{file} is a single file, not .parquet; give a folder of images or a .parquet file")
    return open_parquet(file, [file], split)
