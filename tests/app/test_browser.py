"""The page as a visitor uses it: every tab, in a browser, with tiny models behind it."""

import base64
import io
import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from app.test_compare import RESULT
from codec.models import photo
from hybridvq.app.compare import SHIPPED
from hybridvq.app.page import serve
from hybridvq.codec import describe

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 90  # for a step; on a busy machine

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed; see `make browser`")


@pytest.fixture(scope="module")
def server(site):
    """The page's address, and the folder of its uploads."""
    with serve(site, "127.0.0.1", 0) as address:
        yield address, site.state.uploads.root


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@contextmanager
def visit(browser, address):
    """A visitor of their own; the page must ask nobody else for anything, and raise nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    asked, raised = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(error))
    page.goto(address)
    image(page, "reconstruct").wait_for()
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert raised == []


@pytest.fixture(scope="module")
def page(browser, server):
    with visit(browser, server[0]) as page:
        yield page


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def result(page, name):
    return page.locator(f"#{name}-result")


def image(page, name, number=0):
    return result(page, name).locator("img").nth(number)


def pixels(page, name, number=0):
    """What an image of a tab's result shows, (H, W, 3)."""
    data = image(page, name, number).get_attribute("src").split(",")[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def upload(page, button, path):
    with page.expect_file_chooser() as choice:
        page.locator(f"#{button}").click()
    choice.value.set_files(path)


def says(page, name, text):
    sync_api.expect(result(page, name)).to_contain_text(text, timeout=1000 * SECONDS)


def changes(locator, before):
    sync_api.expect(locator).not_to_have_text(before, timeout=1000 * SECONDS)


def test_reconstruct(page):
    np.testing.assert_array_equal(pixels(page, "reconstruct"), photo(300, 451))
    assert result(page, "reconstruct").locator("img").count() == 8
    page.locator("#picture-samples").get_by_text("coffee", exact=True).click()
    cell = result(page, "reconstruct").locator("tr", has_text="PSNR").locator("td").nth(2)
    page.wait_for_function("document.querySelector('#reconstruct-result img').naturalWidth == 600")
    as_is = cell.inner_text()
    page.locator("#reconstruct-scale input[type=range]").press("Home")
    changes(cell, as_is)
    none = cell.inner_text()
    assert float(none.split()[0]) < float(as_is.split()[0])
    page.locator("#reconstruct-scale input[type=number]").fill("1")
    changes(cell, none)


def choose(page, control, name):
    """Another entry of a drop-down list."""
    page.locator(f"#{control} input").click()
    option = page.get_by_role("option", name=name, exact=True)
    option.click()
    option.wait_for(state="hidden")  # a list that is still closing would be taken for the next one


def test_the_model_is_chosen(page):
    tab(page, "Reconstruct")
    choose(page, "reconstruct-model", "hybrid")
    says(page, "reconstruct", "hybrid: codes alone without the details")
    assert not page.locator("#reconstruct-scale").is_visible()
    choose(page, "reconstruct-beside", "gain-shape")
    says(page, "reconstruct", "gain-shape: gains")
    choose(page, "reconstruct-model", "gain-shape")
    page.locator("#reconstruct-scale").wait_for()
    choose(page, "reconstruct-beside", "vq")
    says(page, "reconstruct", "vq: codes alone each position by itself")


def test_the_line_between_two_pictures_moves(page):
    tab(page, "Reconstruct")
    slide = result(page, "reconstruct").locator(".slide")
    clip = "(slide) => getComputedStyle(slide.querySelectorAll('img')[1]).clipPath"
    assert "50%" in slide.evaluate(clip)
    box = slide.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert 23 < float(slide.evaluate(clip).split()[-1].rstrip("%)")) < 27


def test_a_click_magnifies(page):
    tab(page, "Reconstruct")
    shown = image(page, "reconstruct", 2)
    width = shown.bounding_box()["width"]
    shown.click()
    assert shown.bounding_box()["width"] == 1280 > 2 * width
    shown.click()
    assert shown.bounding_box()["width"] == width


def test_an_upload_is_the_picture_of_all_tabs(page, tmp_path):
    tab(page, "Reconstruct")
    Image.fromarray(photo(40, 56)).save(tmp_path / "mine.png")
    upload(page, "picture-upload", tmp_path / "mine.png")
    says(page, "picture", "All tabs show mine.png.")
    page.wait_for_function("document.querySelector('#reconstruct-result img').naturalWidth == 56")
    tab(page, "Compress")
    says(page, "compress", "Download mine.hvq")
    page.locator("#picture-samples").get_by_text("chelsea", exact=True).click()
    says(page, "compress", "Download chelsea.hvq")
    tab(page, "Reconstruct")
    page.wait_for_function("document.querySelector('#reconstruct-result img').naturalWidth == 451")


def test_compress_and_open_again(page, tmp_path):
    tab(page, "Compress")
    page.locator("#compress-go").click()
    link = result(page, "compress").locator("a.download")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "chelsea.hvq"
    download.value.save_as(tmp_path / "chelsea.hvq")
    data = (tmp_path / "chelsea.hvq").read_bytes()
    assert f"({len(data):,} bytes)" in link.inner_text()
    assert sum(part.size for part in describe(data)) == len(data)
    shown = [pixels(page, "compress", number) for number in (3, 4, 1)]
    upload(page, "compress-open", tmp_path / "chelsea.hvq")
    says(page, "compress", "451x300 pixels, 57x38 positions")
    np.testing.assert_array_equal([pixels(page, "compress", number) for number in range(3)], shown)
    (tmp_path / "cut.hvq").write_bytes(data[:50])
    upload(page, "compress-open", tmp_path / "cut.hvq")
    says(page, "compress", "cut.hvq is cut off")
    assert page.locator("#compress-quality").is_visible()
    choose(page, "compress-model", "gain-shape")
    page.locator("#compress-lambda").wait_for()
    assert not page.locator("#compress-quality").is_visible()
    assert not page.locator("#compress-seed").is_visible()
    page.locator("#compress-go").click()
    says(page, "compress", "lambda 0")
    page.locator("#compress-dial").get_by_text("bits per pixel").click()
    page.locator("#compress-target input").fill("0.0001")
    page.locator("#compress-go").click()
    says(page, "compress", "out of reach")


def test_generate(page):
    tab(page, "Generate")

    def drawn(seed):
        page.locator("#generate-seed input").fill(str(seed))
        page.locator("#generate-go").click()
        says(page, "generate", f"10 pictures seed {seed}")
        return image(page, "generate").get_attribute("src")

    first, other, again = drawn(0), drawn(1), drawn(0)
    assert first == again != other
    page.locator("#generate-keep").get_by_text("left half").click()
    page.locator("#generate-complete").click()
    says(page, "generate", "what is kept of chelsea, then seed 0")
    assert (pixels(page, "generate")[2:18, 10:18] == 128).all()


def test_codebook(page):
    tab(page, "Codebook")
    says(page, "codebook", "of its 120 codes")
    codes = result(page, "codebook").locator(".codes i")
    assert codes.count() == 120
    codes.nth(50).hover()
    large = codes.nth(50).evaluate("(i) => { const s = getComputedStyle(i, '::after'); return [s.width, s.height] }")
    assert large == ["384px", "128px"], "at three gains, side by side"
    assert "% of positions" in codes.nth(50).evaluate("(i) => getComputedStyle(i, '::before').content")
    page.locator("#codebook-model").get_by_text("vq").click()
    says(page, "codebook", "of its 64 codes")
    assert codes.count() == 64


def test_compare(page, tmp_path):
    tab(page, "Compare")
    says(page, "compare", json.loads(SHIPPED.read_text())["runs"][0]["title"])
    upload(page, "compare-open", RESULT)
    says(page, "compare", "Of the 2 tokenizers")
    assert result(page, "compare").locator("img").count() == 3
    (tmp_path / "result.json").write_text("{}")
    upload(page, "compare-open", tmp_path / "result.json")
    says(page, "compare", "result.json is not a comparison")


def test_odd_uploads(page, server, tmp_path):
    tab(page, "Reconstruct")
    Image.new("1", (8000, 6250)).save(tmp_path / "huge.png")
    upload(page, "picture-upload", tmp_path / "huge.png")
    says(page, "picture", "huge.png cannot be read as an image (8000x6250 pixels, over the limit of 40 megapixels)")
    (tmp_path / "letter.png").write_text("a letter")
    upload(page, "picture-upload", tmp_path / "letter.png")
    says(page, "picture", "letter.png cannot be read as an image (not an image); choose another file.")
    before = image(page, "reconstruct").get_attribute("src")
    page.locator("#reconstruct-scale input[type=range]").press("ArrowLeft")
    sync_api.expect(image(page, "reconstruct")).to_have_attribute("src", before)
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "dot.png")
    upload(page, "picture-upload", tmp_path / "dot.png")
    says(page, "picture", "All tabs show dot.png")
    page.wait_for_function("document.querySelector('#reconstruct-result img').naturalWidth == 1")
    assert pixels(page, "reconstruct").tolist() == [[[0, 128, 128]]]
    for name in ("Traceback", "Error"):
        assert name not in page.locator("body").inner_text()
    assert list(server[1].iterdir()) == []


def test_two_visitors_see_their_own_pictures(browser, server, tmp_path):
    colors = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    for name, color in colors.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (24, 20), color).save(tmp_path / name / "mine.png")
    with visit(browser, server[0]) as red, visit(browser, server[0]) as blue:
        visitors = {"red": red, "blue": blue}
        for name, page in visitors.items():
            upload(page, "picture-upload", tmp_path / name / "mine.png")
        for name, page in visitors.items():
            says(page, "picture", "All tabs show mine.png")
            page.wait_for_function("document.querySelector('#reconstruct-result img').naturalWidth == 24")
            assert (pixels(page, "reconstruct") == colors[name]).all()
        for value in ("0.5", "1.5"):
            cells = {}
            for name, page in visitors.items():
                cell = result(page, "reconstruct").locator("tr", has_text="MSE").locator("td").nth(2)
                cells[name] = cell, cell.inner_text()
                page.locator("#reconstruct-scale input[type=number]").fill(value)
            for name, page in visitors.items():
                changes(*cells[name])
                assert (pixels(page, "reconstruct") == colors[name]).all()
