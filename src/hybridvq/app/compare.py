"""The tab Compare: the curves and the table of a `result.json` that `hybridvq compare` wrote."""

from pathlib import Path
from typing import Any

from hybridvq.app import markup
from hybridvq.documents import read_json
from hybridvq.errors import ConfigError
from hybridvq.report.figures import curves_figure, to_svg, usage_figure
from hybridvq.report.rate import operating_points, rate_figure
from hybridvq.report.result import RecipeRuns, by_group, drawing, gather
from hybridvq.report.summary import summary
from hybridvq.report.table import COLUMNS, cells

SHIPPED = Path(__file__).with_name("result.json")  # four recipes on ImageNet at 64x64 pixels
MAX_BYTES = 4 * 2**20
MAX_TEXT = 300  # characters of a text or key
MAX_ENTRIES = 64  # of a list of runs, or of anything else that has parts
MAX_NUMBERS = 2**17  # of a list of numbers


def open_result(path: str | Path) -> str:
    """The page's part of a result file.

    Raises:
        ConfigError: it is not a result that can be drawn.
    """
    name = Path(path).name
    recipes = read_recipes(Path(path), name)
    with drawing(name):
        return render(recipes)


def read_recipes(path: Path, name: str) -> list[RecipeRuns]:
    """The recipes of a result file.

    Raises:
        ConfigError: it is too large, not JSON, or not a result, or has more or longer entries than can be drawn.
    """
    instead = "choose a result.json that `hybridvq compare` wrote"
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES // 2**20} MB; {instead}")
    try:
        result = read_json(path)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; {instead}") from None
    if excess := too_much(result):
        raise ConfigError(f"{name} has {excess}; {instead}")
    return gather(result, name)


def too_much(value: Any) -> str:
    """What of a JSON value is too large to be drawn, in words; may be empty. A few MB can ask for hours of drawing."""
    if isinstance(value, str):
        return f"a text of {len(value):,} characters, over the limit of {MAX_TEXT}" if len(value) > MAX_TEXT else ""
    if not isinstance(value, dict | list):
        return ""
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    limit = MAX_ENTRIES if any(isinstance(part, dict | list) for part in value) else MAX_NUMBERS
    if len(value) > limit:
        return f"a list of {len(value):,} entries, over the limit of {limit:,}"
    return next(filter(None, map(too_much, parts)), "")


def render(recipes: list[RecipeRuns]) -> str:
    """Summary, table and figures."""
    figures = [(curves_figure(recipes), "Curves"), (usage_figure(recipes), "Codes")]
    if any(map(operating_points, recipes)):
        figures.insert(0, (rate_figure(recipes), "Bits against quality"))
    return markup.block(
        markup.paragraph(" ".join(summary(recipes))),
        results(recipes),
        *(markup.drawing(to_svg(figure), title) for figure, title in figures if figure is not None),
    )


def results(recipes: list[RecipeRuns]) -> str:
    """The table of the report, means and deviations over seeds."""
    rows = []
    for members in by_group(recipes).values():
        for recipe in members:
            shown = [" ".join(filter(None, (c.text, c.spread, c.remark))) for c in cells(recipe, recipes)]
            rows.append([recipe.title, *shown])
    return markup.table(["Recipe", *(f"{column.head}, {column.unit}" for column in COLUMNS)], rows)
