"""Write a picture of each tab of the web page, by a browser that is installed here.

    python docs/screenshots.py --result demo/result.json
    python docs/screenshots.py --model runs/mine --baseline runs/vector --prior runs/mine-prior --out screenshots

Starts the page, uses every tab once at a width of 1,280 pixels, and writes one PNG a tab into --out, in 256 colors and
below 200 kB. Without --result the tab Compare is left out.
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
VIEW = {"width": 1280, "height": 860}
HIGHEST = 1800  # pixels of a picture, at most
LARGEST = 200_000  # bytes; what takes more is made smaller
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
                write(page, Path(arguments.out) / f"{name.lower()}.png")
            opened.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="photos-gain-shape")
    made.add_argument("--baseline", default="photos-vq")
    made.add_argument("--prior", default="photos-vq-prior")
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

    made = {
        "Reconstruct": shown("reconstruct"),
        "Compress": clicked("compress"),
        "Generate": clicked("generate"),
        "Codebook": shown("codebook"),
    }
    return made | ({"Compare": opened} if result else {})


def write(page: Page, path: Path) -> None:
    """The page as it is, as a small PNG."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # what fades in, has
    taken = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    taken = taken.crop((0, 0, taken.width, min(taken.height, HIGHEST)))
    path.parent.mkdir(parents=True, exist_ok=True)
    width = taken.width
    while width == taken.width or path.stat().st_size > LARGEST:
        shown = taken.resize((width, taken.height * width // taken.width), Image.Resampling.LANCZOS)
        shown.quantize(256).save(path, optimize=True)
        width = width * 7 // 8
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
