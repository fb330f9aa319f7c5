"""The figures of a comparison's page: bits against quality, and errors and codes along the run. One question each."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.equal_bits import hull
from experiments.families import BITS, FAMILIES, family, points_of
from hybridvq.report.figures import INK, empty_figure, log_axis, plain_axes, to_svg
from hybridvq.report.result import REFERENCE, RecipeRuns, gather
from hybridvq.report.series import curve_band
from hybridvq.report.style import Look, looks

LINES = 4  # of a figure of curves
STRETCH = 1.8  # models with so many times the largest error of any family are not drawn
REPORT_STEPS = 39100
REPORT = {"VQ-VAE in the report, 0.019": 0.019, "projection in the report, 0.0057": 0.0057}
COLORS = dict(zip([*FAMILIES, ""], ("#D55E00", "#0072B2", "#009E73", "#777777"), strict=True))
MARKERS = dict(zip([*FAMILIES, ""], "osD^", strict=True))


def figures(result: dict[str, Any]) -> dict[str, bytes]:
    """The figures that this comparison has something to show in, by name."""
    recipes = gather(result)
    draw = {"rate": rate_figure, "curves": partial(curves_figure, steps=result["setting"]["steps"])}
    return {name: to_svg(draw[name](recipes)) for name in figure_names(recipes)}


def figure_names(recipes: list[RecipeRuns]) -> list[str]:
    """Which of the figures `rate` and `curves` have something to show."""
    return [*(["rate"] if rate_keys(recipes) else []), *(["curves"] if along(recipes) else [])]


def rate_keys(recipes: list[RecipeRuns]) -> list[str]:
    """The ways of counting bits by which two families or more have two sizes."""
    return [key for key in BITS if sum(len(points) > 1 for points in points_of(recipes, key).values()) > 1]


def along(recipes: list[RecipeRuns]) -> list[RecipeRuns]:
    """The first few recipes with codes, which are shown along the run."""
    return [recipe for recipe in recipes if recipe.group != REFERENCE and recipe.stat("codebook_size").count][:LINES]


def rate_figure(recipes: list[RecipeRuns]) -> Figure:
    """Test MSE over bits per position of each family."""
    keys = rate_keys(recipes)
    found = points_of(recipes, keys[0])
    most = STRETCH * max(mse for points in found.values() for _, mse in points)
    drawn = [r for r in recipes if r.stat("test_mse").mean <= most and not r.gains and r.stat(keys[0]).count]
    names = {name: FAMILIES.get(name, "others") for name in COLORS if name in map(family, drawn)}
    shown = [RecipeRuns(name, title, "", "", ()) for name, title in names.items()]
    figure = empty_figure(4.4, shown, {name: Look(COLORS[name], "-", MARKERS[name]) for name in names})
    for ax, key in zip(figure.subplots(1, len(keys), squeeze=False, sharey=True)[0], keys, strict=True):
        draw_families(ax, drawn, key)
        plain_axes(ax, f"Bits by {BITS[key]}")
        log_axis(ax)
        ax.set_xlabel("Bits per position", color=INK)
    figure.axes[0].set_ylabel("Test MSE, log scale", color=INK)
    return figure


def draw_families(ax: Axes, recipes: list[RecipeRuns], key: str) -> None:
    """A line through the best members of each family, and every model as a point with its deviation over seeds."""
    for name, points in points_of(recipes, key).items():
        ax.plot(*zip(*hull(points), strict=True), color=COLORS[name], linewidth=1.4)
    for recipe in recipes:
        bits, mse, name = recipe.stat(key), recipe.stat("test_mse"), family(recipe)
        if bits.count:
            deviation = mse.sd if mse.count > 1 else 0.0
            look: dict[str, Any] = {"color": COLORS[name], "marker": MARKERS[name], "markersize": 5}
            ax.errorbar(bits.mean, mse.mean, deviation, capsize=2, **look)


def curves_figure(recipes: list[RecipeRuns], steps: int) -> Figure:
    """Test MSE (left) and the share of codes in use (right) along the run, of the first few with codes."""
    shown = along(recipes)
    style = looks(shown)
    figure = empty_figure(4.2, shown, style)
    left, right = figure.subplots(1, 2)
    for recipe in shown:
        look, size = style[recipe.name], recipe.stat("codebook_size").mean
        for ax, key, scale in ((left, "test_mse", 1.0), (right, "test_codes_used", 1 / size)):
            band = curve_band(recipe, "test_step", key)
            if band is None:
                continue
            ax.plot(band.x, scale * band.mean, color=look.color, linestyle=look.line, linewidth=1.6)
            ax.fill_between(band.x, scale * band.low, scale * band.high, color=look.color, alpha=0.15, linewidth=0)
    if steps == REPORT_STEPS:
        draw_report(left, steps)
    plain_axes(left, "Error along the run")
    plain_axes(right, "Share of the codes in use")
    log_axis(left)
    right.set_ylim(0, 1.05)
    left.set_ylabel("MSE, log scale", color=INK)
    for ax in (left, right):
        ax.set_xlabel("Training step", color=INK)
    return figure


def draw_report(ax: Axes, steps: int) -> None:
    """The report's two errors, at the end of its schedule, as lines across."""
    for text, mse in REPORT.items():
        ax.plot(np.array([0, steps]), [mse, mse], color="#999999", linestyle=":", linewidth=1.2)
        ax.annotate(text, (steps, mse), ha="right", va="bottom", fontsize=8, color=INK)
