import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from hybridvq.errors import ConfigError
from hybridvq.report import write_figures, write_report
from hybridvq.report.pictures import to_png

VOID = {"meta", "img", "br", "line"}


class Page(HTMLParser):
    """Collects the links of a page and checks that its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(write_folder):
    return lambda runs: Page(write_report(write_folder(runs)).read_text(encoding="utf-8"))


def test_everything_is_inside_the_file(write_folder, four_runs):
    html = write_report(write_folder(four_runs)).read_text(encoding="utf-8")
    assert all(link.startswith("data:image/") for link in Page(html).links)
    page = re.sub(r"base64,[^\"]*", "", html)
    assert not re.search(r"https?://|//[a-z]|@import|url\(|<script|<link|<iframe", page)


def test_sections_and_scale(page, four_runs):
    text = page(four_runs).text
    for heading in (
        "Results",
        "rounded after training",
        "Training",
        "Pictures",
        "Codebook",
        "How it was made",
    ):
        assert heading in text
    assert "10 log10(4 / MSE)" in text
    assert "pixel values from -1 to 1" in text
    assert "one for every 4 × 4 pixels" in text
    assert "23 November 2026, 19:00 UTC" in text
    assert "0123456789abcdef" in text
    assert "hybridvq compare --steps 100" in text


def test_seeds_are_one_row(page, run):
    runs = [run("a", "healthy", seed, test_mse=mse) for seed, mse in enumerate((0.02, 0.03, 0.07))]
    text = page(runs).text
    assert "0.0400 ± 0.0265" in text
    assert "3 seeds" in text
    assert "bands reach from the lowest to the highest" in text


def test_text_is_escaped(write_folder, run):
    title = "<script>alert(1)</script> & $x^$"
    html = write_report(write_folder([run("a", "healthy", title=title, description="<i>")])).read_text()
    assert "<script>" not in html
    assert "<i>" not in html
    assert title in Page(html).text


def test_names_that_nothing_can_show_are_escaped(write_folder, run):
    name = os.fsdecode(b"a\xff") + "\x1b[2J"
    folder = write_folder([run("a", "healthy", title=name, warnings=[f"step 2: {name}"])])
    result = json.loads((folder / "result.json").read_text())
    result["data"]["name"], result["skipped"] = f"{name} data", [f"{name}.jpg: truncated"]
    (folder / "result.json").write_text(json.dumps(result))
    text = Page(write_report(folder).read_text(encoding="utf-8")).text
    for shown in (r"a\xff\x1b[2J data", r"a\xff\x1b[2J.jpg: truncated", r"step 2: a\xff\x1b[2J"):
        assert shown in text


def test_without_a_coefficient_there_is_no_second_table(page, run):
    assert "rounded after training" not in page([run("a", "healthy")]).text


def test_warnings_of_the_watch_are_shown(page, run):
    text = page([run("a", "healthy", warnings=["step 200: codebook collapse: <4> codes"])]).text
    assert "1 warning while training" in text
    assert "A, seed 0, step 200: codebook collapse: <4> codes" in text
    assert "while training" not in page([run("a", "healthy")]).text


def test_skipped_images_are_listed(write_folder, run):
    folder = write_folder([run("a", "healthy")])
    result = json.loads((folder / "result.json").read_text())
    result["skipped"] = [f"{i}.jpg: truncated" for i in range(30)]
    (folder / "result.json").write_text(json.dumps(result))
    text = Page(write_report(folder).read_text()).text
    assert "30 images could not be read and were left out; the first 20 are: 0.jpg: truncated" in text
    assert "20.jpg" not in text


def test_a_page_without_any_optional_value(page, run):
    empty = {key: None for key in run("a", "healthy") if key not in ("recipe", "title", "group", "description", "seed")}
    text = page([run("a", "healthy", **empty)]).text
    assert "No recipe here recorded which codes it uses." in text
    assert "were not saved" in text
    assert "None" not in text
    assert "nan" not in text.lower()


def test_missing_arrays_are_told(write_folder, four_runs):
    folder = write_folder(four_runs)
    shutil.rmtree(folder / "runs" / "vector-published-seed0")
    text = Page(write_report(folder).read_text()).text
    assert "Its reconstructions are not in runs/vector-published-seed0/reconstructions.npy" in text
    (folder / "originals.npy").unlink()
    text = Page(write_report(folder).read_text()).text
    assert "No pictures: the held-out images are not in originals.npy, which does not exist." in text


def test_a_failure_keeps_the_old_page(write_folder, four_runs, monkeypatch):
    folder = write_folder(four_runs)
    (folder / "report.html").write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "old"
    assert not list(folder.glob(".hybridvq-*"))


def test_values_of_another_type(write_folder, run, tmp_path):
    folder = write_folder([run("vector", "healthy") | {"curve": 3}])
    for draw in (write_report, lambda folder: write_figures(folder, tmp_path / "figures")):
        with pytest.raises(ConfigError, match=r"result\.json is not a result that can be drawn \(\w+\); run"):
            draw(folder)


def test_no_result_no_page(tmp_path):
    with pytest.raises(ConfigError, match="compare"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_figures_as_files(write_folder, four_runs, run, tmp_path):
    reference = run("identity", "continuous reference", usage=None, codebook_size=None)
    written = write_figures(write_folder([*four_runs, reference]), tmp_path / "docs" / "figures")
    assert [path.name for path in written] == ["curves.svg", "rate.svg", "usage.svg", "pictures.png"]
    assert written[0].read_bytes().startswith(b"<?xml")
    assert written[3].read_bytes().startswith(b"\x89PNG")


def test_figures_are_the_same_bytes_each_time(write_folder, run, tmp_path):
    folder = write_folder([run("a", "healthy")])
    first, second = (write_figures(folder, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_figures_without_data_are_left_out(write_folder, run, tmp_path):
    folder = write_folder([run("identity", "continuous reference", usage=None, codebook_size=None)])
    (folder / "originals.npy").unlink()
    assert [path.name for path in write_figures(folder, tmp_path / "docs")] == ["curves.svg", "rate.svg"]


def test_pyplot_is_not_loaded():
    code = "import sys, hybridvq.report; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_photographs_through_trained_models_come_first(write_folder, four_runs):
    folder = write_folder(four_runs)
    assert "whole photographs" not in Page(write_report(folder).read_text()).text
    result = json.loads((folder / "result.json").read_text())
    file = {"title": "mine, hybrid", "bytes": 2436, "rate_bpp": 0.1441, "psnr_db": 30.31, "image": "models/cat-0.png"}
    result["models"] = [
        {"name": "cat", "width": 9, "height": 6, "original": "models/cat-original.png", "files": [file]}
    ]
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "models").mkdir()
    (folder / "models" / "cat-0.png").write_bytes(to_png(np.zeros((6, 9, 3), np.uint8)))
    page = Page(write_report(folder).read_text())
    assert "mine, hybrid 2,436 bytes, 0.144 bits per pixel, 30.3 dB" in page.text
    assert "models/cat-original.png cannot be read (No such file or directory)." in page.text
    assert page.text.index("whole photographs") < page.text.index("tokenizers trained") < page.text.index("Results")


def test_pictures_are_larger_where_there_are_few(write_folder, run):
    for names, side in (("a", 240), ("abcdefghi", 112)):
        html = write_report(write_folder([run(name, "healthy") for name in names])).read_text()
        assert f'width="{side}" height="{side}" alt="Original 1"' in html
