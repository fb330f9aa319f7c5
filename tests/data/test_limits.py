"""What a small file may cost: sizes are looked at before anything is allocated, and memory is counted."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridvq.data import decode as decode_module
from hybridvq.data import images as images_module
from hybridvq.data import open_images, open_stream
from hybridvq.data import stream as stream_module
from hybridvq.data.decode import MAX_ASPECT, MAX_SIDE, UnreadableError, decode, fit, without_warnings
from hybridvq.errors import DataError

from .shards import write_parquet
from .written import icns, ico, png


def refused(data: bytes, reason: str, most: int = 120_000_000) -> None:
    with without_warnings(), pytest.raises(UnreadableError, match=reason):
        decode(data, most)


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when Pillow prepares memory for pixels."""

    def load_prepare(image: Image.Image) -> None:
        raise AssertionError(f"{image.size} pixels are allocated")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load_prepare", load_prepare)


def saved(kind: str, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(("icon", "kind"), [(ico, "PNG"), (icns, "PNG"), (icns, "JPEG2000")])
def test_an_icon_is_refused_by_the_size_of_the_image_inside(icon: Callable[[bytes], bytes], kind: str) -> None:
    refused(icon(saved(kind, 300, 200)), "300x200 pixels, over the limit", most=50_000)


@pytest.mark.usefixtures("undecoded")
def test_an_icon_is_refused_by_the_size_of_its_bitmap() -> None:
    refused(ico(struct.pack("<IiiHHIIIIII", 40, 300, 400, 1, 32, 0, 0, 0, 0, 0, 0)), "300x400", most=50_000)


@pytest.mark.parametrize(("icon", "side"), [(ico, 48), (icns, 1024)])
def test_icons_are_read_at_the_size_inside(icon: Callable[[bytes], bytes], side: int) -> None:
    with without_warnings():
        assert decode(icon(saved("PNG", side, side))).size == (side, side)


def test_damaged_icons_are_unreadable() -> None:
    for data in (ico(b""), icns(b""), ico(b"\x89PNG\r\n\x1a\n"), b"\0\0\1\0\0\0", b"\0\0\1\0", b"icns"):
        refused(data, "")


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(("width", "height"), [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (89_000_000, 1)])
def test_a_side_has_a_limit(width: int, height: int) -> None:
    refused(png(width, height, 8, 0, b""), rf"{width}x{height} pixels, over the limit of 1,048,576 pixels per side")


@pytest.mark.usefixtures("undecoded")
def test_what_is_decoded_in_python_has_a_lower_limit() -> None:
    refused(b"qoif" + struct.pack(">II", 5000, 5000) + b"\3\0", "5000x5000 pixels of QOI, over the limit of 16 mega")
    refused(b"P2 5000 5000 255 ", "5000x5000 pixels of PPM, over the limit")


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize("name", ["BLP", "IPTC"])
def test_formats_that_hold_another_format_are_not_opened(name: str) -> None:
    assert name not in decode_module._formats()


def test_enlarging_a_long_image_has_a_limit() -> None:
    assert fit(Image.new("RGB", (MAX_ASPECT, 1)), 4).shape == (4, 4 * MAX_ASPECT, 3)
    with pytest.raises(UnreadableError, match="101x1 pixels, over 100 times as long as wide and to be enlarged"):
        fit(Image.new("RGB", (MAX_ASPECT + 1, 1)), 4)
    assert fit(Image.new("RGB", (1010, 10)), 4).shape == (4, 404, 3)


LONG = (8, 8 * 90)  # kept at size 8, 60 times what a photograph takes


def folder_of_long_images(folder: Path, count: int, *bad: int) -> str:
    for number in range(count):
        path = folder / "train" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", LONG, number).save(path)
        if number in bad:
            path.write_bytes(b"junk")
    (folder / "test").mkdir()
    Image.new("L", LONG).save(folder / "test" / "0.png")
    return str(folder)


@pytest.mark.parametrize("skip", [False, True])
def test_long_images_are_counted_while_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: bool
) -> None:
    data = folder_of_long_images(tmp_path, 40, *([3] if skip else []))
    monkeypatch.setattr(images_module, "MEMORY_BUDGET", 20 * 3 * LONG[0] * LONG[1])
    kept: list[int] = []
    decode_slice = images_module.RecordImages._decode_slice

    def counted(*arguments: object, **options: object) -> list[np.ndarray | UnreadableError | None]:
        results = decode_slice(*arguments, **options)  # type: ignore[arg-type]
        kept.append(sum(result.nbytes for result in results if isinstance(result, np.ndarray)))
        return results

    monkeypatch.setattr(images_module.RecordImages, "_decode_slice", counted)
    images = open_images(data, "train", size=8, skip_unreadable=skip)
    assert images._memory is None  # type: ignore[attr-defined]
    assert 0 < sum(kept) <= images_module.MEMORY_BUDGET
    assert len(images) == 40 - len(images.skipped) == 40 - skip
    shown = {int(images.crop(i, None).max()) for i in range(len(images))}
    assert shown == set(range(40)) - ({3} if skip else set())


def test_long_images_of_a_stream_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", [saved("PNG", 8, 800)] * 40)
    monkeypatch.setattr(stream_module, "MEMORY_BUDGET", 20 * 3 * 8 * 800)
    assert len(open_stream(str(tmp_path), "test", size=8).take(10)) == 10
    with pytest.raises(DataError, match=r"the first 32 images of .* GiB of memory; give a smaller limit or size"):
        open_stream(str(tmp_path), "test", size=8).take(40)
