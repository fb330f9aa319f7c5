"""`hybridvq app` says in one sentence what is missing."""

import importlib.util
import subprocess
import sys

import pytest

from hybridvq.app.models import Models
from hybridvq.app.page import build_page
from hybridvq.app.tabs import guarded, taken
from hybridvq.cli import main
from hybridvq.errors import ConfigError, DataError


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == (
        "hybridvq: the page needs gradio, which is not installed; pip install 'hybridvq[app]'\n"
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


def test_a_page_of_models_without_tables(loaded, bare):
    """The Compress tab is the sentence that says what is missing."""
    page = build_page(Models(bare, loaded.baseline, loaded.prior))
    said = [block.value for block in page.blocks.values() if getattr(block, "elem_id", None) == "compress-result"]
    assert ["run `hybridvq fit-codec`" in text for text in said] == [True]


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
