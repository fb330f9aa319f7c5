"""Bits against quality: the figure that a comparison at unequal bits needs."""

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hybridvq.metrics import psnr_db
from hybridvq.report.figures import INK, empty_figure, plain_axes
from hybridvq.report.result import RecipeRuns, Stat
from hybridvq.report.style import Look, looks

FALL_DB = 3.0  # rounded versions that lie further below the trained model are not drawn: they would crush the scale


@dataclass(frozen=True)
class Point:
    """One operating point: bits per pixel, raw and by entropy (NaN where it was not measured), and PSNR in dB."""

    raw_bpp: float
    entropy_bpp: float
    psnr_db: float


def operating_points(recipe: RecipeRuns) -> list[Point]:
    """The recipe as trained, then with its coefficient rounded to fewer and fewer bits; means over seeds."""
    trained = Point(
        recipe.stat("rate_bpp").mean, recipe.stat("entropy_rate_bpp").mean, recipe.stat("test_psnr_db").mean
    )
    per_position = trained.raw_bpp / recipe.stat("bits_per_position").mean
    points = [trained]
    for bits, (mse, raw) in recipe.rounded().items():
        entries = [entry for gains in recipe.gains for entry in gains["rounded"] if entry["bits"] == bits]
        entropy = Stat.of([entry.get("entropy_bits_per_position") for entry in entries]).mean
        points.append(Point(raw.mean * per_position, entropy * per_position, psnr_db(mse.mean)))
    return [point for point in points if math.isfinite(point.raw_bpp) and math.isfinite(point.psnr_db)]


def rate_figure(recipes: list[RecipeRuns]) -> Figure:
    """PSNR over bits per pixel, before entropy coding (left) and at the entropy of the symbols used (right)."""
    style = looks(recipes)
    figure = empty_figure(4.6, recipes, style)
    left, right = figure.subplots(1, 2, sharey=True)
    for recipe in recipes:
        points = operating_points(recipe)
        points = [point for point in points if point.psnr_db > points[0].psnr_db - FALL_DB]
        _draw(left, [(point.raw_bpp, point.psnr_db) for point in points], style[recipe.name])
        _draw(right, [(point.entropy_bpp, point.psnr_db) for point in points], style[recipe.name])
    for ax, title in ((left, "Before entropy coding"), (right, "At the entropy of the symbols used")):
        rate_axes(ax, title)
    left.set_ylabel("PSNR, dB", color=INK)
    return figure


def rate_axes(ax: Axes, title: str) -> None:
    """Axes of something over bits per pixel, on a logarithmic scale with plain numbers."""
    plain_axes(ax, title)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("Bits per pixel (log scale)", color=INK)


def _draw(ax: Axes, points: list[tuple[float, float]], look: Look) -> None:
    """The trained point filled, or half filled as published; its rounded versions hollow and joined to it."""
    drawn = [(bits, quality) for bits, quality in points if math.isfinite(bits) and bits > 0]
    if not drawn:
        return
    style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 6}
    ax.plot(*zip(*drawn, strict=True), linewidth=0.8, linestyle=look.line, markerfacecolor="white", **style)
    fill: Any = "bottom" if look.line == "--" else "full"
    ax.plot(*drawn[0], linestyle="none", fillstyle=fill, markerfacecoloralt="white", **style)
