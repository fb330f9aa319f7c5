"""Put the pieces of a report together: one HTML file that needs nothing else, or the figures as files."""

import json
import math
from datetime import datetime
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, StrictUndefined

from hybridvq.printing import printable
from hybridvq.report.figures import curves_figure, to_svg, usage_figure
from hybridvq.report.montage import montage_png
from hybridvq.report.photographs import photographs
from hybridvq.report.pictures import (
    Pictures,
    Reconstructions,
    color_bar,
    data_uri,
    load_pictures,
    psnr_db,
    psnr_text,
    to_png,
)
from hybridvq.report.rate import operating_points, rate_figure
from hybridvq.report.result import REFERENCE, RecipeRuns, Stat, as_number, by_group, drawing, gather, read_result
from hybridvq.report.style import MISSING, bits_text, looks, significant, significant_decimals
from hybridvq.report.summary import summary
from hybridvq.report.table import COLUMNS, cells, format_stat
from hybridvq.writing import write_whole

_TEMPLATE = "page.html.j2"
_LARGEST_PX, _WIDTH_PX = 240, 1100  # of a picture where there are few columns, and of all side by side
_GROUP_NOTES = {
    "published": "codes started and learned as published, without the care of the healthy recipes",
    "healthy": "the same idea, trained so that its codebook stays in use",
    "gain-shape": "the code is a direction, and how far along it is rounded to one of a few levels or left a float",
    REFERENCE: "no codebook: how well the networks do when nothing is made discrete",
}


def write_report(folder: Path) -> Path:
    """Write folder/report.html from folder/result.json and the arrays it names; return its path.

    The file is complete or not written at all. A missing array is reported on the page.

    Raises:
        ConfigError: result.json is missing or is not a result.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    result = read_result(folder)
    recipes = gather(result)
    source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    with drawing(folder / "result.json"):
        html = environment.from_string(source).render(_context(folder, result, recipes))
    return save(folder / "report.html", html.encode("utf-8"))


def write_figures(folder: Path, out: Path, pictures: bool = True) -> list[Path]:
    """Write the report's figures into `out`: curves.svg, rate.svg, usage.svg and, with `pictures`, pictures.png.

    A figure without data is left out. Returns the paths written.

    Raises:
        ConfigError: result.json is missing or is not a result.
        OSError: `out` cannot be written.
    """
    folder, out = Path(folder), Path(out)
    result = read_result(folder)
    recipes = gather(result)
    out.mkdir(parents=True, exist_ok=True)
    with drawing(folder / "result.json"):
        return draw_figures(folder, out, result, recipes, pictures)


def draw_figures(
    folder: Path, out: Path, result: dict[str, Any], recipes: list[RecipeRuns], pictures: bool
) -> list[Path]:
    written = [save(out / "curves.svg", to_svg(curves_figure(recipes)))]
    if any(map(operating_points, recipes)):
        written.append(save(out / "rate.svg", to_svg(rate_figure(recipes))))
    usage = usage_figure(recipes)
    if usage is not None:
        written.append(save(out / "usage.svg", to_svg(usage)))
    shown = load_pictures(folder, result, recipes) if pictures else None
    if isinstance(shown, Pictures):
        written.append(save(out / "pictures.png", montage_png(shown)))
    return written


def _shown(value: Any) -> Any:
    """A text as the page shows it; markup and numbers as they are."""
    return printable(" ".join(value.split())) if type(value) is str else value


def save(path: Path, content: bytes) -> Path:
    write_whole(path, content)
    return path


def _context(folder: Path, result: dict[str, Any], recipes: list[RecipeRuns]) -> dict[str, Any]:
    """Everything the template shows."""
    usage = usage_figure(recipes)
    pictures = load_pictures(folder, result, recipes)
    data = _section(result, "data")
    return {
        "models": photographs(folder, result),
        "data": data,
        "created": _date(result.get("created")),
        "patch": _patch(recipes),
        "summary": summary(recipes),
        "columns": COLUMNS,
        "groups": by_group(recipes),
        "group_notes": _GROUP_NOTES,
        "cells": {recipe.name: cells(recipe, recipes) for recipe in recipes},
        "looks": looks(recipes),
        "rounding": _rounding(recipes),
        "rate": data_uri("svg+xml", to_svg(rate_figure(recipes))) if any(map(operating_points, recipes)) else None,
        "curves": data_uri("svg+xml", to_svg(curves_figure(recipes))),
        "usage": data_uri("svg+xml", to_svg(usage)) if usage is not None else None,
        "pictures": _pictures(pictures) if isinstance(pictures, Pictures) else {"problem": pictures},
        "facts": _facts(result),
        "warnings": [
            f"{recipe.title}, seed {run.get('seed', MISSING)}, {text}"
            for recipe in recipes
            for run in recipe.runs
            for text in run.get("warnings") or []
        ],
        "runs": [_run(recipe, run) for recipe in recipes for run in recipe.runs],
        "command": result.get("command") or MISSING,
        "skipped": [str(name) for name in result.get("skipped") or []],
        "several_seeds": any(len(recipe.runs) > 1 for recipe in recipes),
    }


def _section(result: dict[str, Any], name: str) -> dict[str, Any]:
    section = result.get(name)
    return section if isinstance(section, dict) else {}


def _date(created: Any) -> str:
    """An ISO date as "23 November 2026, 19:00 UTC"; anything else as it is."""
    try:
        date = datetime.fromisoformat(created)
    except (TypeError, ValueError):
        return str(created or "")
    return f"{date.day} {date:%B %Y, %H:%M %Z}".strip()


def _patch(recipes: list[RecipeRuns]) -> int | None:
    """Side in pixels of the square that one position stands for, from the two ways of giving the rate."""
    sides = set()
    for recipe in recipes:
        position, pixel = recipe.stat("bits_per_position").mean, recipe.stat("rate_bpp").mean
        if position > 0 and pixel > 0:
            sides.add(round(math.sqrt(position / pixel), 3))
    side = sides.pop() if len(sides) == 1 else 0.5
    return int(side) if side == int(side) else None


def _rounding(recipes: list[RecipeRuns]) -> dict[str, Any] | None:
    """The second table: test MSE and bits with the coefficient unrounded, then rounded ever more."""
    with_gains = [recipe for recipe in recipes if recipe.gains]
    widths = sorted({bits for recipe in with_gains for bits in recipe.rounded()}, reverse=True)
    if not with_gains or not widths:
        return None
    rows = []
    for recipe in with_gains:
        rounded, nothing = recipe.rounded(), (Stat.of([]), Stat.of([]))
        pairs = [(recipe.stat("test_mse"), recipe.stat("bits_per_position"))]
        pairs += [rounded.get(bits, nothing) for bits in widths]
        rows.append(
            {
                "recipe": recipe,
                "gains": _gains(recipe),
                "cells": [_rounding_cell(mse, bits) for mse, bits in pairs],
            }
        )
    return {"widths": widths, "rows": rows}


def _rounding_cell(mse: Stat, bits: Stat) -> dict[str, str]:
    text, spread = format_stat(mse, significant_decimals(mse.mean))
    return {"mse": text, "spread": spread, "bits": bits_text(bits.mean)}


def _gains(recipe: RecipeRuns) -> dict[str, str]:
    """The coefficients over all seeds: mean of means and of deviations, lowest and highest."""
    mean, sd, low, high = (
        [value for value in map(as_number, (gains.get(key) for gains in recipe.gains)) if math.isfinite(value)]
        for key in ("mean", "std", "min", "max")
    )
    return {
        "mean": significant(fmean(mean)) if mean else MISSING,
        "sd": significant(fmean(sd), 2) if sd else MISSING,
        "min": significant(min(low), 2) if low else MISSING,
        "max": significant(max(high), 2) if high else MISSING,
    }


def _pictures(pictures: Pictures) -> dict[str, Any]:
    """The grid as data: PNGs and captions, row by row."""
    count, height, width = pictures.originals.shape[:3]
    room = min(_LARGEST_PX, _WIDTH_PX // (1 + len(pictures.columns)))
    zoom = max(pictures.zoom, room // max(height, width))
    return {
        "problem": "",
        "width": width * zoom,
        "height": height * zoom,
        "zoom": zoom,
        "scale": pictures.scale,
        "bar": data_uri("png", to_png(color_bar())),
        "columns": [
            {
                "recipe": column.recipe,
                "problem": column.problem,
                "bits": bits_text(column.recipe.stat("bits_per_position").mean),
            }
            for column in pictures.columns
        ],
        "rows": [
            {
                "original": data_uri("png", to_png(pictures.originals[row])),
                "cells": [_picture(pictures, column, row) for column in pictures.columns],
            }
            for row in range(count)
        ],
    }


def _picture(pictures: Pictures, column: Reconstructions, row: int) -> dict[str, str] | None:
    if column.images is None:
        return None
    return {
        "image": data_uri("png", to_png(column.images[row])),
        "error": data_uri("png", to_png(pictures.error_map(column, row))),
        "psnr": psnr_text(psnr_db(pictures.originals[row], column.images[row])),
    }


def _facts(result: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The small lists at the end of the page, by their heading; empty ones are left out."""
    sections = {"Data": "data", "Setting": "setting", "Versions": "versions", "Hardware": "hardware"}
    facts = {
        heading: {key.replace("_", " "): _value(value) for key, value in _section(result, name).items()}
        for heading, name in sections.items()
    }
    return {heading: entries for heading, entries in facts.items() if entries}


def _value(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _run(recipe: RecipeRuns, run: dict[str, Any]) -> dict[str, str]:
    """One line of the list of single runs."""
    return {
        "title": recipe.title,
        "seed": _value(run.get("seed")),
        "steps": _value(run.get("steps")),
        "precision": _value(run.get("precision")),
        "mse": significant(as_number(run.get("test_mse")), 4),
        "quantization": significant(as_number(run.get("test_quantization_mse"))),
        "perplexity": significant(as_number(run.get("perplexity"))),
        "minutes": significant(as_number(run.get("train_seconds")) / 60),
    }
