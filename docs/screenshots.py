"""Write a picture of each tab of the web page, by a browser that is installed here.

    python docs/screenshots.py --result demo/result.json
    python docs/screenshots.py --model runs/mine --baseline runs/vector --prior runs/mine-prior --out screenshots

Starts the page, uses every tab once at a width of 1,280 pixels, and writes one WebP per tab into --out, at that width.
The tab Compare shows --result, if given, else the comparison that ships.
"""

import argparse
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120  # a step may take on a slow machine
VIEW = {"width": 1280, "height": 1000}
HIGHEST = 1640  # pixels of a picture, at most
QUALITY = 85  # of the WebP files
RESULTS = "#{tab}-result .hvq {what}"


def main() -> None:
    arguments = parser().parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser is installed; install one of {', '.join(BROWSERS)}, such as by `make browser`")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from hybridvq.app.models import load_models
    from hybridvq.app.page import build_page, build_site, serve
    from hybridvq.app.uploads import Uploads, run_folder

    with run_folder() as folder:
        uploads = Uploads(folder)
        models = (arguments.model, arguments.baseline, arguments.prior, arguments.hybrid)
        shown = build_page(load_models(*models), uploads)
        with serve(build_site(shown, uploads), "127.0.0.1", arguments.port) as address, sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
            page = opened.new_page(viewport=VIEW)
            page.set_default_timeout(1000 * SECONDS)
            page.goto(address)
            for name, use in tabs(arguments.result).items():
                page.get_by_role("tab", name=name, exact=True).click()
                use(page)
                write(page, Path(arguments.out) / f"{name.lower()}.webp")
            opened.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="photos-gain-shape")
    made.add_argument("--baseline", default="photos-vq")
    made.add_argument("--prior", default="cifar10-prior")
    made.add_argument("--hybrid", default="photos")
    made.add_argument("--result", help="a result.json for the tab Compare")
    made.add_argument("--port", type=int, default=7869)
    made.add_argument("--out", default="docs/screenshots", help="folder to write")
    return made


def tabs(result: str | None) -> dict[str, Callable[[Page], None]]:
    """What is done in each tab before it is taken."""

    def shown(tab: str, what: str = "img") -> Callable[[Page], None]:
        return lambda page: page.locator(RESULTS.format(tab=tab, what=what)).first.wait_for()

    def clicked(tab: str) -> Callable[[Page], None]:
        def use(page: Page) -> None:
            page.locator(f"#{tab}-go").click()
            shown(tab)(page)

        return use

    def opened(page: Page) -> None:
        with page.expect_file_chooser() as choice:
            page.locator("#compare-open").click()
        choice.value.set_files(result or "")
        shown("compare")(page)

    def pointed(page: Page) -> None:
        shown("codebook", "i")(page)
        page.locator(RESULTS.format(tab="codebook", what="i")).nth(20).hover()

    return {
        "Reconstruct": shown("reconstruct"),
        "Compress": shown("compress"),
        "Generate": clicked("generate"),
        "Codebook": pointed,
        "Compare": opened if result else shown("compare"),
    }


def write(page: Page, path: Path) -> None:
    """The page as it is, down to HIGHEST."""
    page.wait_for_timeout(1000)  # what fades in, has
    page.wait_for_function("!/processing \\|/.test(document.body.innerText)")
    page.set_viewport_size(
        {"width": VIEW["width"], "height": min(HIGHEST, page.evaluate("document.body.scrollHeight"))}
    )
    page.wait_for_timeout(500)
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.set_viewport_size(VIEW)
    path.parent.mkdir(parents=True, exist_ok=True)
    taken.save(path, quality=QUALITY, method=6)
    print(f"{path}: {taken.width}x{taken.height} pixels, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
