"""The tab Compare: the curves and the table of a `result.json` that `hybridvq compare` wrote."""

from pathlib import Path

from hybridvq.app import markup
from hybridvq.documents import read_json
from hybridvq.errors import ConfigError
from hybridvq.report.figures import curves_figure, to_svg, usage_figure
from hybridvq.report.rate import operating_points, rate_figure
from hybridvq.report.result import Recipe, by_group, drawing, gather
from hybridvq.report.summary import summary
from hybridvq.report.table import COLUMNS, cells

MAX_BYTES = 32 * 2**20


def open_result(path: str | Path) -> str:
    """The page's part of a result file.

    Raises:
        ConfigError: it is not a result that can be drawn.
    """
    name = Path(path).name
    recipes = read_recipes(Path(path), name)
    with drawing(name):
        return render(recipes)


def read_recipes(path: Path, name: str) -> list[Recipe]:
    """The recipes of a result file.

    Raises:
        ConfigError: it is too large, not JSON, or not a result.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(
            f"{name} is larger than {MAX_BYTES // 2**20} MB; choose a result.json that `hybridvq compare` wrote"
        )
    try:
        result = read_json(path)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; choose a result.json that `hybridvq compare` wrote") from None
    return gather(result, name)


def render(recipes: list[Recipe]) -> str:
    """Summary, table and figures."""
    figures = [(curves_figure(recipes), "Curves"), (usage_figure(recipes), "Codes")]
    if any(map(operating_points, recipes)):
        figures.insert(0, (rate_figure(recipes), "Bits against quality"))
    return markup.block(
        markup.paragraph(" ".join(summary(recipes))),
        results(recipes),
        *(markup.drawing(to_svg(figure), title) for figure, title in figures if figure is not None),
    )


def results(recipes: list[Recipe]) -> str:
    """The table of the report, means and deviations over seeds."""
    rows = []
    for members in by_group(recipes).values():
        for recipe in members:
            shown = [" ".join(filter(None, (c.text, c.spread, c.remark))) for c in cells(recipe, recipes)]
            rows.append([recipe.title, *shown])
    return markup.table(["Recipe", *(f"{column.head}, {column.unit}" for column in COLUMNS)], rows)
