"""Every upload has a folder of its own, is read once, and leaves nothing, however it or the page ends."""

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image
from starlette.requests import Request

from app.test_door import FILE, result
from hybridvq import DataError
from hybridvq.app import uploads as module
from hybridvq.app.uploads import Uploads, run_folder, safe_name


def send(client, name="mine.png", content=b"a picture"):
    return client.post("/gradio_api/upload", files={"files": (name, content)})


@pytest.fixture
def root(site):
    yield site.state.uploads.root
    for left in site.state.uploads.root.iterdir():
        shutil.rmtree(left)


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (24, 20), "teal").save(tmp_path / "mine.png")
    return (tmp_path / "mine.png").read_bytes()


def test_one_picture_of_many_visitors(client, site, root, picture):
    paths = [send(client, content=picture).json()[0] for _ in range(6)]
    assert len(set(paths)) == 6
    for number, path in enumerate(paths):
        file = {"path": path, "meta": FILE}
        shown = result(client, site, "uploaded", file, session=f"visitor{number}")
        assert "mine.png" in shown
        assert not Path(path).parent.exists()
        again = {"fn_index": 2, "session_hash": "a", "data": [file]}
        assert client.post("/gradio_api/queue/join", json=again).status_code == 400
    assert list(root.iterdir()) == []


def test_one_file_a_request(client, root):
    for files in ([("files", ("a", b"a")), ("files", ("b", b"b"))], [("other", ("a", b"a"))], [("files", (None, "a"))]):
        assert client.post("/gradio_api/upload", files=files).status_code == 400
    assert client.post("/gradio_api/upload", content=b"a").status_code == 400
    assert list(root.iterdir()) == []


def test_large_files_are_refused(client, root):
    headers = {"content-type": "multipart/form-data; boundary=a", "content-length": str(65 * 2**20)}
    assert client.post("/gradio_api/upload", headers=headers, content=b"--a").status_code == 413
    head = b'--a\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    del headers["content-length"]
    endless = (bytes(2**20) if part else head for part in range(80))
    assert client.post("/gradio_api/upload", headers=headers, content=endless).status_code == 413
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("my cat.png", "my cat.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\cat.JPG", "cat.JPG"),
        ("/", "upload"),
        ("..", "upload"),
        ("a\0b\n\x1b[31m.png", "ab[31m.png"),
        ("é" * 300 + ".png", "é" * 100 + ".png"),
        ("a." + "b" * 300, "a." + "b" * 15),
        ("漢字.png", "漢字.png"),
    ],
)
def test_names(sent, kept, tmp_path):
    assert safe_name(sent) == kept
    (tmp_path / kept).write_text("fits")


def test_names_of_requests(client, root):
    for name in ("../../../evil.png", "/etc/evil.png", "a" * 1000, "..", "%2e%2e%2fevil.png"):
        (path,) = send(client, name).json()
        assert Path(path).parent.parent == root
        assert Path(path).read_bytes() == b"a picture"


def test_waiting_files_are_bounded(client, root, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    assert [send(client).status_code for _ in range(5)] == [200, 200, 200, 503, 503]
    oldest = min(root.iterdir())
    os.utime(oldest, (0, time.time() - module.SECONDS - 1))
    assert send(client).status_code == 200
    assert not oldest.exists()
    assert len(list(root.iterdir())) == 3


def test_uploads_that_break_off(tmp_path):
    head = b'--a\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + bytes(2**21)
    messages = iter([{"type": "http.request", "body": head, "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    headers = [(b"content-type", b"multipart/form-data; boundary=a")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    assert asyncio.run(Uploads(tmp_path).receive(request)).status_code == 400
    assert list(tmp_path.iterdir()) == []


def test_only_uploads_are_found(tmp_path):
    root = tmp_path / "run"
    (root / "token").mkdir(parents=True)
    (root / "token" / "a.png").write_text("a picture")
    (tmp_path / "secret").write_text("a secret")
    (root / "token" / "link").mkdir()
    uploads = Uploads(root)
    assert uploads.find(str(root / "token" / "a.png")).read_text() == "a picture"
    for path in ("../secret", root / "../secret", root / "token", root / "x/../../secret", "a.png", None, 3, "", "\0"):
        with pytest.raises(DataError, match="upload it again"):
            uploads.find(path if path is None or path == 3 else str(path))


def test_folders_of_killed_runs_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, foreign = tmp_path / f"{module.RUN}0123", tmp_path / "hybridvq-app-notes"
    for folder in (killed, foreign):
        (folder / "token").mkdir(parents=True)
        (folder / "token" / "a.png").write_text("left")
    killed.with_suffix(".lock").touch()
    with run_folder() as one:
        assert not killed.exists()
        (one / "token").mkdir()
        with run_folder() as other:
            assert one.exists()
            assert other != one
        assert sorted(tmp_path.iterdir()) == sorted([foreign, one, one.with_suffix(".lock")])
        assert one.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [foreign]


def test_links_lead_nowhere(tmp_path, monkeypatch):
    """Somebody who may write to the folder of temporary files cannot have another folder removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    link = tmp_path / "temporary" / f"{module.RUN}0123"
    link.symlink_to(tmp_path / "mine")
    link.with_suffix(".lock").touch()
    with run_folder():
        pass
    assert (tmp_path / "mine" / "letter").read_text() == "dear"


def test_a_run_that_ends_badly_removes_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run():
        with run_folder() as folder:
            (folder / "token").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert list(tmp_path.iterdir()) == []


def test_locks_of_running_runs_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running = tmp_path / f"{module.RUN}0123"
    with FileLock(running.with_suffix(".lock")):
        running.mkdir()
        with run_folder():
            assert running.exists()
