"""The pages of docs/results, each from the result.json beside it alone.

    python -m experiments.pages              writes all of them anew
    python -m experiments.pages cifar10      or some

README.md, the figures, and the short tables that other pages hold between markers of the folder's name.
"""

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.comparison_page import TITLES
from hybridvq.documents import read_json
from hybridvq.writing import write_whole

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
HOLDERS = [ROOT / page for page in ("README.md", "docs/results/README.md", "docs/compressing.md")]  # of short tables

# The module that shows each result: `page(result)` is its text, and there may be `figures(result)`, SVG by name, and
# `short_table(result)`.
PAGES = {
    **dict.fromkeys(TITLES, "comparison_page"),
    **dict.fromkeys(("kodak", "codec"), "rate_page"),
    "latents": "latents.page",
    "new-images": "new_images_page",
    "other-pictures": "other_pictures_page",
    "pretrained": "pretrained_page",
    "priors": "priors_page",
}


def write_page(folder: Path, kind: str) -> None:
    """Write the page of a result as PAGES shows that kind; and what other pages hold of it, where it is that result."""
    module, result = page_module(kind), read_json(folder / "result.json")
    for name, content in getattr(module, "figures", no_figures)(result).items():
        write_whole(folder / f"{name}.svg", content)
    write_whole(folder / "README.md", module.page(result).encode())
    if hasattr(module, "short_table") and folder.name in PAGES:
        table = module.short_table(result)
        for holder in HOLDERS:
            write_whole(holder, filled(holder.read_text(encoding="utf-8"), folder.name, table).encode())


def page_module(kind: str) -> Any:
    return import_module(f"experiments.{PAGES[kind]}")


def no_figures(result: dict[str, Any]) -> dict[str, bytes]:
    return {}


def filled(text: str, name: str, table: str) -> str:
    """`text` with this table between the markers of `name`, if it has them."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="folders in docs/results; all if not given")
    there = [path.parent.name for path in sorted(RESULTS.glob("*/result.json"))]
    for name in parser.parse_args(words).names or there:
        write_page(RESULTS / name, name)


if __name__ == "__main__":
    main()
