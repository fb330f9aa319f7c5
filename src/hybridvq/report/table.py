"""The table of results: its columns, its cells, and the same as GitHub markdown or in the terminal."""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hybridvq.report.result import REFERENCE, RecipeRuns, Stat, by_group, gather
from hybridvq.report.style import MISSING, significant_decimals


@dataclass(frozen=True)
class Column:
    """One column: the key of result.json it shows, how, and what it means in one line."""

    key: str
    head: str
    unit: str
    note: str
    decimals: Callable[[float], int]
    better: Literal["low", "high"] | None = None
    out_of: str | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Cell:
    """`text`, its spread over seeds and a remark, both of which may be empty; `best` of its column."""

    text: str
    spread: str = ""
    remark: str = ""
    best: bool = False


def _fixed(decimals: int, value: float) -> int:
    return decimals


def _bits_decimals(value: float) -> int:
    return 1 if value < 100 else 0


COLUMNS = (
    Column(
        "bits_per_position",
        "Bits per position",
        "raw",
        "log2 K for each code, log2 L for each gain on L levels, 32 for each coefficient or entry kept as a float.",
        _bits_decimals,
        "low",
    ),
    Column(
        "rate_bpp",
        "Bits per pixel",
        "raw",
        "The same bits, shared among the pixels of the image.",
        significant_decimals,
        "low",
    ),
    Column(
        "entropy_rate_bpp",
        "Bits per pixel",
        "entropy",
        "The same with codes, and levels given codes, at their entropy, what an ideal coder spends; floats still 32.",
        significant_decimals,
        "low",
    ),
    Column(
        "test_mse",
        "Test MSE",
        "[-1, 1]",
        "Mean squared error on held-out images, pixel values from -1 to 1. Lower is better.",
        significant_decimals,
        "low",
    ),
    Column(
        "test_psnr_db",
        "PSNR",
        "dB",
        "Peak signal-to-noise ratio, 10 log10(4 / MSE). Higher is better; 3 dB halve the MSE.",
        partial(_fixed, 2),
        "high",
    ),
    Column(
        "test_ssim",
        "SSIM",
        "0 to 1",
        "Structural similarity, closer to what the eye sees than MSE. Higher is better; 1 is identical.",
        partial(_fixed, 3),
        "high",
    ),
    Column(
        "codes_used",
        "Codes used",
        "of K",
        "How many of the K vectors of the codebook are used at least once on the held-out images.",
        partial(_fixed, 0),
        out_of="codebook_size",
    ),
    Column(
        "code_entropy_bits",
        "Code entropy",
        "bits",
        "How evenly codes are used: at most log2 K, 0 if one code is used for everything.",
        partial(_fixed, 2),
    ),
    Column(
        "max_loss_spike",
        "Loss spike",
        "×",
        "The worst jump of the training loss, as a multiple of its level just before. Near 1 is smooth.",
        partial(_fixed, 1),
        "low",
    ),
    Column("images_per_second", "Speed", "images/s", "Training speed on the hardware named below.", partial(_fixed, 0)),
    Column(
        "params",
        "Parameters",
        "millions",
        "Numbers learned: encoder, codebook and decoder.",
        partial(_fixed, 2),
        scale=1e-6,
    ),
)


_IN_TERMINAL = {"bits_per_position", "test_mse", "test_psnr_db", "codes_used"}


def format_stat(stat: Stat, decimals: int, scale: float = 1.0) -> tuple[str, str]:
    """Mean and "± sd" to the same decimals: "–" without a value, no spread unless two values differ."""
    if not math.isfinite(stat.mean):
        return MISSING, ""
    text = f"{scale * stat.mean:,.{decimals}f}"
    if not math.isfinite(stat.sd) or stat.sd < 1e-9 * abs(stat.mean):
        return text, ""
    smallest = 10.0**-decimals
    sd = scale * stat.sd
    shown = f"<{smallest:.{decimals}f}" if sd < smallest / 2 else f"{sd:,.{decimals}f}"
    return text, f"± {shown}"


def cells(recipe: RecipeRuns, recipes: list[RecipeRuns]) -> list[Cell]:
    """One cell for each of COLUMNS; `best` is decided among those of `recipes` that are not a reference."""
    return [_cell(column, recipe, recipes) for column in COLUMNS]


def _cell(column: Column, recipe: RecipeRuns, recipes: list[RecipeRuns]) -> Cell:
    stat = recipe.stat(column.key)
    if not math.isfinite(stat.mean):
        return Cell(MISSING)
    text, spread = format_stat(stat, column.decimals(column.scale * stat.mean), column.scale)
    total = recipe.stat(column.out_of).mean if column.out_of else math.nan
    if math.isfinite(total):
        text += f" of {total:,.0f}"
    remark = "" if stat.complete else f"{stat.count} of {stat.seeds} seeds"
    return Cell(text, spread, remark, _is_best(column, recipe, recipes))


def _is_best(column: Column, recipe: RecipeRuns, recipes: list[RecipeRuns]) -> bool:
    """A value that everybody shares is nobody's best."""
    rivals = [r.stat(column.key) for r in recipes if r.group != REFERENCE]
    values = {stat.mean for stat in rivals if stat.complete}
    own = recipe.stat(column.key)
    if column.better is None or recipe.group == REFERENCE or not own.complete or len(values) < 2:
        return False
    return own.mean == (min(values) if column.better == "low" else max(values))


def markdown_table(result: dict[str, Any]) -> str:
    """The table of a result (schema 1) as GitHub markdown, grouped, mean ± sample sd over seeds.

    Raises:
        ConfigError: `result` is not a result.
    """
    recipes = gather(result)
    heads = [f"{column.head} ({column.unit})" for column in COLUMNS]
    lines = [_row(["Recipe", "Seeds", *heads]), _row(["---", "--:"] + ["--:"] * len(COLUMNS))]
    for group, members in by_group(recipes).items():
        lines.append(_row([f"*{_plain(group)}*"] + [""] * (1 + len(COLUMNS))))
        for recipe in members:
            shown = [" ".join(filter(None, (c.text, c.spread, c.remark))) for c in cells(recipe, recipes)]
            name = f"**{_plain(recipe.title)}**<br>{_plain(recipe.description)}"
            lines.append(_row([name, str(len(recipe.runs)), *shown]))
    return "\n".join(lines) + "\n"


def print_table(result: dict[str, Any], console: Console | None = None) -> None:
    """Print the columns of a result (schema 1) that fit 80 characters, means over seeds: bits, error, codes used.

    Raises:
        ConfigError: `result` is not a result.
    """
    recipes = gather(result)
    shown = [i for i, column in enumerate(COLUMNS) if column.key in _IN_TERMINAL]
    table = Table("Recipe", box=SIMPLE_HEAD)
    for i in shown:
        table.add_column(f"{COLUMNS[i].head}\n{COLUMNS[i].unit}", justify="right", no_wrap=True)
    for members in by_group(recipes).values():
        table.add_section()
        for recipe in members:
            row = cells(recipe, recipes)
            table.add_row(Text(recipe.title), *(row[i].text for i in shown))
    (console or Console()).print(table)


def _plain(text: str) -> str:
    """Text that markdown shows as it is, on one line and within its cell."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    for mark in "\\|*_`[]":
        escaped = escaped.replace(mark, "\\" + mark)
    return escaped


def _row(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"
