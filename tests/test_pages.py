"""Every page of published results is what its result.json says."""

import re
import runpy
import sys

import pytest
from experiments import pages

from hybridvq.documents import read_json
from hybridvq.quantizers import QUANTIZERS

NAMES = sorted(path.parent.name for path in pages.RESULTS.glob("*/result.json"))


@pytest.fixture(autouse=True)
def registry():
    """As it was: an experiment adds its quantizer when it is imported."""
    before = dict(QUANTIZERS)
    yield
    QUANTIZERS.clear()
    QUANTIZERS.update(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_follows_from_its_result(name):
    folder = pages.RESULTS / name
    module, result = pages.page_module(name), read_json(folder / "result.json")
    text = module.page(result)
    assert text == (folder / "README.md").read_text(encoding="utf-8"), f"python -m experiments.pages {name}"
    shown = {match.removesuffix(".svg") for match in re.findall(r"\(([^()/]+\.svg)\)", text)}
    assert shown == {path.stem for path in folder.glob("*.svg")}
    assert shown == set(getattr(module, "figures", pages.no_figures)(result))
    if hasattr(module, "short_table"):
        for holder in pages.HOLDERS:
            held = holder.read_text(encoding="utf-8")
            assert pages.filled(held, name, module.short_table(result)) == held, holder


def test_every_result_has_a_page():
    assert set(NAMES) <= set(pages.PAGES)
    assert len(NAMES) > 10


def commands():
    """(module, words) of every command of an experiment that a page prints."""
    pattern = re.compile(r"^    python -m (experiments[\w.]*) ?(.*)$", re.MULTILINE)
    shown = [*(pages.ROOT / "docs").rglob("*.md"), *(pages.ROOT / "experiments").glob("*.md")]
    texts = [path.read_text(encoding="utf-8").replace("\\\n", " ") for path in shown]
    return sorted({match for text in texts for match in pattern.findall(text)})


@pytest.mark.filterwarnings("ignore:'experiments:RuntimeWarning")  # such a module is imported already
@pytest.mark.parametrize(("module", "words"), commands(), ids=lambda value: value.removeprefix("experiments."))
def test_a_printed_command_has_these_options(module, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert not stop.value.code
    known = capsys.readouterr().out.replace("-", "_")
    for option in re.findall(r"(--[\w-]+)", words):
        assert option.replace("-", "_") in known, option
    for file in re.findall(r"[\w/.-]+\.yaml", words):
        assert (pages.ROOT / file).is_file()
