"""`hybridvq app` says in one sentence what is missing."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from app.conftest import site_of
from app.test_door import result
from hybridvq.app.chooser import guarded, taken
from hybridvq.app.page import bind
from hybridvq.app.uploads import Uploads
from hybridvq.cli import main
from hybridvq.commands.app import ended_as_by_ctrl_c
from hybridvq.errors import ConfigError, DataError
from hybridvq.extras import install


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == f"hybridvq: this needs gradio, which is not installed; {install('app')}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "--port is 0"),
        (["--model", "nowhere"], "there is no model folder nowhere"),
        (["--share", "true"], "share"),
        (["--allowed-hosts", "https://demo.example.com"], "give names such as demo.example.com"),
    ],
)
def test_wrong_words(words, message, capsys):
    assert main(["app", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_model_without_tables(bare, loaded, tmp_path):
    site = site_of(replace(loaded, model=bare), tmp_path)
    with TestClient(site, base_url="http://127.0.0.1:7860") as client:
        shown = result(client, site, "work", None, "chelsea", bare.title, "lambda", 50, 0, 1, 0, 1)
    assert "holds no codec.safetensors, without which nothing can be compressed; run `hybridvq fit-c" in shown


def test_a_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot be served at 127\.0\.0\.1:{port} \(.+\); choose another --"):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot be served at no such host:1 "):
        bind("no such host", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_as_ctrl_c(number, request):
    before = signal.SIG_DFL  # under nohup, SIGHUP is ignored
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, before)))
    with pytest.raises(KeyboardInterrupt), ended_as_by_ctrl_c():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_stopped_page_leaves_nothing(folders, tmp_path):
    """The command itself, with a file that nobody has read and a browser that looks on, as a service is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "hybridvq.cli", "app", "--port", str(port), "--allowed-hosts", "demo.example.com"]
    words += [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == f"http://127.0.0.1:{port}/ shows the page; Ctrl-C stops it\n"
        with httpx.Client(base_url=line.split()[0], trust_env=False) as client:
            hosts = ("127.0.0.1", "demo.example.com", "evil.example")
            assert [client.get("/", headers={"host": host}).status_code for host in hosts] == [200, 200, 400]
            (path,) = client.post("/gradio_api/upload", files={"files": ("a.png", b"a picture")}).json()
        assert Path(path).is_relative_to(tmp_path)
        with httpx.Client(base_url=line.split()[0], trust_env=False).stream("GET", "/gradio_api/heartbeat/a") as stream:
            assert stream.status_code == 200
            process.terminate()
            assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_failures_are_sentences(tmp_path, capsys):
    def refuse(value):
        raise ConfigError(f"<b>{value}</b> is no size")

    assert guarded(refuse, None)("x") == (
        None,
        '<div class="hvq"><p class="problem" role="alert">&lt;b&gt;x&lt;/b&gt; is no size</p></div>',
    )

    def fail(value):
        raise KeyError(value)

    shown = guarded(fail)("secret")
    assert "Something went wrong" in shown
    assert "secret" not in shown
    assert "KeyError: 'secret'" in capsys.readouterr().err


def test_uploads_are_deleted_once_they_are_read(tmp_path):
    def refuse(path):
        raise DataError("unreadable")

    uploads = Uploads(tmp_path)
    for name, reader in (("a", lambda path: path), ("b", refuse)):
        file = tmp_path / name / "mine.png"
        file.parent.mkdir()
        file.write_text("a picture")
        try:
            taken(reader, uploads, {"path": str(file)})
        except DataError:
            assert name == "b"
        assert list(tmp_path.iterdir()) == []
    for sent in (None, {"path": str(file)}):
        with pytest.raises(DataError, match="upload it again"):
            taken(refuse, uploads, sent)


def test_help_needs_no_gradio():
    code = "import sys; from hybridvq.cli import main; sys.argv = ['hybridvq', 'app', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nassert not {'gradio', 'torch'} & set(sys.modules)"
    assert (
        "--baseline" in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
