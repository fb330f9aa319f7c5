"""Bits against quality of photographs: this project's files beside JPEG, WebP, AVIF and JPEG XL.

    python -m experiments.rate_curves FOLDER --name "my photographs" --out docs/results/codec
    python -m experiments.rate_curves FOLDER --out docs/results/codec --rivals --models runs/a runs/b

Measures the codecs named (all rivals if nothing is said) on the images of FOLDER whose sides are at least 176 pixels,
and writes result.json, README.md and rate.svg. Curves that the result holds already and that are not measured again
stay, so a new model costs only its own; their photographs must be the same. `--page` writes the result's page anew.
"""

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import features

from experiments.ours import ours
from experiments.pages import write_page
from experiments.photos import RIVALS, Rival, fingerprint, measure, read_photographs
from hybridvq.comparison.plan import hardware
from hybridvq.documents import read_json, to_json
from hybridvq.writing import write_whole

RESULT = "result.json"


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    out = Path(arguments.out)
    result = read_result(out)
    if not arguments.page:
        photographs = read_photographs(arguments.folder, arguments.limit)
        about = {
            "name": arguments.name or result.get("photographs", {}).get("name", "photographs"),
            "images": len(photographs),
            "megapixels": round(sum(p.shape[0] * p.shape[1] for p in photographs) / 1e6, 2),
            "fingerprint": fingerprint(photographs),
        }
        if result.get("photographs", about)["fingerprint"] != about["fingerprint"]:
            sys.exit(f"{out / RESULT} was measured on other photographs; give another --out")
        result["photographs"] = about
        if arguments.rivals != [] or "versions" not in result:  # those of the rivals, where they are not measured again
            result |= {"versions": versions(), "hardware": hardware()}
        torch.set_num_threads(1)
        for rival in codecs(arguments):
            points = [{"quality": q, **measure(rival.at(q), photographs)} for q in progress(rival)]
            curve = {"codec": rival.name, "title": rival.title, "points": points}
            curve |= {"model_bytes": rival.model_bytes} if rival.model_bytes else {}
            others = [c for c in result.get("curves", []) if c["codec"] != rival.name]
            result["curves"] = [*others, curve]
            write_whole(out / RESULT, to_json(result))
    write_page(out, "kodak")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", help="of photographs")
    made.add_argument("--name", help="how the page calls them")
    made.add_argument("--out", default="docs/results/codec", help="folder of the result")
    made.add_argument("--limit", type=int, help="measure only so many, evenly spread")
    made.add_argument("--rivals", nargs="*", choices=[rival.name for rival in RIVALS], help="all if not given")
    made.add_argument("--models", nargs="*", default=[], help="runs with tables, each measured at several settings")
    made.add_argument("--page", action="store_true", help="measure nothing, write the page of the result")
    return made


def read_result(out: Path) -> dict[str, Any]:
    path = out / RESULT
    return dict(read_json(path)) if path.exists() else {}


def codecs(arguments: argparse.Namespace) -> Iterator[Rival]:
    names = [rival.name for rival in RIVALS] if arguments.rivals is None else arguments.rivals
    for rival in RIVALS:
        if rival.name in names:
            if rival.available:
                yield rival
            else:
                print(f"{rival.title} is left out: nothing installed here writes it", flush=True)
    for model in arguments.models:
        yield ours(model)


def progress(rival: Rival) -> Iterator[Any]:
    for quality in rival.qualities:
        print(f"{rival.title}, quality {quality}", flush=True)
        yield quality


def versions() -> dict[str, str]:
    """Versions of what encodes, as far as it tells them."""
    found = {"python": platform.python_version(), "pillow": version("pillow"), "torch": version("torch")}
    for key in ("libjpeg_turbo", "webp", "avif"):
        if text := features.version(key):
            found[key] = text
    with suppress(PackageNotFoundError):
        found["pillow-jxl-plugin"] = version("pillow-jxl-plugin")
    return found


if __name__ == "__main__":
    main()
