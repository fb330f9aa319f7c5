"""Members of tar files: which are images, where links lead, and sizes that no archive should state."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from hybridvq.data import open_stream
from hybridvq.data.decode import UnreadableError
from hybridvq.data.tar import tar_images
from hybridvq.errors import DataError

from .shards import encoded, write_set


def write(path: Path, *members: tuple[str, bytes | str, bytes]) -> Path:
    """Write members (name, content or what a link leads to, type)."""
    with tarfile.open(path, "w") as archive:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(content, str):
                member.linkname, content = content, b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def file(name: str, content: bytes) -> tuple[str, bytes, bytes]:
    return name, content, tarfile.REGTYPE


def read(path: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for name, content in tar_images(path):
        try:
            found[name] = content()
        except UnreadableError as error:
            found[name] = str(error)
    return found


def test_members_of_every_ending_that_a_folder_may_have(tmp_path: Path) -> None:
    names = ["0.jpg", "./1.BMP", "a.b/2.tif", "3.tiff", "4.gif", "5.webp", "6.JPEG", "7.ppm"]
    others = ["8.txt", "9.cls", ".hidden.png", "a/._1.png", ".cache/1.png", "png"]
    path = write(tmp_path / "x.tar", *(file(name, name.encode()) for name in names + others))
    assert read(path) == {name: name.encode() for name in names}


def test_images_of_every_ending_are_decoded(tmp_path: Path) -> None:
    def member(ending: str, kind: str) -> tuple[str, bytes, bytes]:
        content = io.BytesIO()
        Image.new("RGB", (4, 4), (50, 50, 50)).save(content, kind)
        return file(f"0.{ending}", content.getvalue())

    for split in ("train", "test"):
        kinds = {"bmp": "BMP", "tif": "TIFF", "gif": "GIF", "PNG": "PNG"}
        write(tmp_path / f"{split}.tar", *(member(ending, kind) for ending, kind in kinds.items()))
    assert len(open_stream(str(tmp_path), "train", size=4).take(9)) == 4


def test_links_lead_to_what_they_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.tar",
        file("a/0.png", b"zero"),
        ("1.png", "a/0.png", tarfile.LNKTYPE),
        ("b/2.png", "../a/0.png", tarfile.SYMTYPE),
        ("b/3.png", "2.png", tarfile.SYMTYPE),
        ("4.png", "later.dat", tarfile.SYMTYPE),
        file("later.dat", b"later"),
        file("5.png", b"five"),
    )
    expected = {"a/0.png": b"zero", "1.png": b"zero", "b/2.png": b"zero", "b/3.png": b"zero"}
    assert read(path) == expected | {"4.png": b"later", "5.png": b"five"}


def test_links_never_leave_the_archive(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(1))
    members = [
        ("0.png", str(tmp_path / "secret.png"), tarfile.SYMTYPE),
        ("1.png", "secret.png", tarfile.SYMTYPE),
        ("2.png", "../secret.png", tarfile.LNKTYPE),
        ("3.png", "3.png", tarfile.SYMTYPE),
        ("4.png", "5.png", tarfile.SYMTYPE),
        ("5.png", "4.png", tarfile.SYMTYPE),
    ]
    found = read(write(tmp_path / "x.tar", *members))
    for name, target, _ in members[:3]:
        assert found[name] == f"a link to {target}, which is not in the archive"
    assert {found[name] for name in ("3.png", "4.png", "5.png")} == {"a link that leads back to itself"}


def test_sparse_and_oversized_members_are_not_read(tmp_path: Path) -> None:
    sparse, large = tarfile.TarInfo("0.png"), tarfile.TarInfo("1.png")
    sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)}
    large.size = 1 << 34
    path = tmp_path / "x.tar"
    path.write_bytes(sparse.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    assert read(path) == {"0.png": "a sparse file"}
    path.write_bytes(large.tobuf() + bytes(10240))
    _, content = next(tar_images(path))
    with pytest.raises(UnreadableError, match="17179869184 bytes, more than an image takes"):
        content()


def with_size(path: Path, size: int) -> None:
    """State a size, in base 256, of the second member, and mend the sum of its header."""
    content = bytearray(path.read_bytes())
    at = 1024  # after the header and the content of the first
    number = size.to_bytes(12, "big", signed=True)
    content[at + 124 : at + 136] = number if size < 0 else b"\x80" + number[1:]
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(content)


@pytest.mark.parametrize("size", [-1, -512, -1024, -(1 << 62), 1 << 62, 1 << 63, 1 << 80])
def test_impossible_sizes_end_in_a_sentence(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "x.tar", *(file(f"{number}.png", b"1") for number in range(3)))
    with_size(path, size)
    with pytest.raises(DataError, match=r"x\.tar cannot be read as a tar file \(.*\); download") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_link_that_leads_out_is_named_or_left_out(tmp_path: Path) -> None:
    write_set(tmp_path, "tar", [2])
    write(tmp_path / "train-000.tar", file("0.png", encoded(0)), ("1.png", "/etc/1.png", tarfile.SYMTYPE))
    with pytest.raises(DataError, match=r"train-000\.tar/1\.png cannot be read as an image \(a link to /etc/1\.png, "):
        open_stream(str(tmp_path), "train", size=4).take(9)
    stream = open_stream(str(tmp_path), "train", size=4, skip_unreadable=True)
    assert len(stream.take(9)) == 1
    assert stream.skipped == ["train-000.tar/1.png: a link to /etc/1.png, which is not in the archive"]
