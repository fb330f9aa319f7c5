"""`hybridvq app` says in one sentence what is missing."""

import importlib.util
import re
import subprocess
import sys

import pytest

from hybridvq.app.tabs import guarded, taken
from hybridvq.cli import main
from hybridvq.errors import ConfigError, DataError


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == (
        "hybridvq: this needs gradio, which is not installed; pip install 'hybridvq[app]'\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "--port is 0"),
        (["--model", "nowhere"], "there is no model folder nowhere"),
        (["--share", "true"], "share"),
    ],
)
def test_wrong_words(words, message, capsys):
    assert main(["app", *words]) == 2
    assert message in capsys.readouterr().err


BUILD = """
import socket, sys
from hybridvq.app.models import load_models
from hybridvq.app.page import build_page, start
page = build_page(load_models(*sys.argv[1:]))
print(*(block.value for block in page.blocks.values() if getattr(block, "elem_id", None) == "compress-result"))
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    try:
        start(page, "127.0.0.1", taken.getsockname()[1])
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_page_of_a_model_without_tables_at_a_taken_port(folders, bare_folder):
    """In a process of its own, since Gradio leaves event loops open."""
    words = [sys.executable, "-c", BUILD, *map(str, (bare_folder, folders["baseline"], folders["prior"]))]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert said.count("holds no codec.safetensors, without which nothing can be compressed; run `hybridvq fit-c") == 1
    assert re.search(
        r"^ConfigError the page cannot be served at 127\.0\.0\.1:\d+ \(.+\); choose another --host", said, re.M
    )


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

    for name, reader in (("a", lambda path: path), ("b", refuse)):
        (tmp_path / name).write_text("a picture")
        try:
            taken(reader, str(tmp_path / name))
        except DataError:
            assert name == "b"
        assert not (tmp_path / name).exists()
    with pytest.raises(DataError, match="upload it again"):
        taken(refuse, None)


def test_help_needs_no_gradio():
    code = "import sys; from hybridvq.cli import main; sys.argv = ['hybridvq', 'app', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nassert not {'gradio', 'torch'} & set(sys.modules)"
    assert (
        "--baseline" in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )
