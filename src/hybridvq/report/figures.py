"""Loss curves and codebook usage, drawn without pyplot so that nothing global is left behind."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from hybridvq.report.result import RecipeRuns
from hybridvq.report.series import Array, Band, curve_band, usage_band
from hybridvq.report.style import Look, looks

INK = "#333333"
_WIDTH_INCHES = 11.0


@dataclass(frozen=True)
class _Panel:
    """One set of axes: its title and the band of each recipe name; `log` leaves out what is not positive.

    `worst` holds the highest values behind a smoothed band, whose top is drawn faintly.
    """

    title: str
    bands: dict[str, Band | None] = field(default_factory=dict)
    worst: dict[str, Band | None] = field(default_factory=dict)
    log: bool = False
    markers: bool = False


def curves_figure(recipes: list[RecipeRuns]) -> Figure:
    """Reconstruction (top) and quantization loss (bottom), in training (left) and held-out (right)."""
    style = looks(recipes)
    figure = empty_figure(7.8, recipes, style)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    keys = (("Reconstruction loss", "mse"), ("Quantization loss", "quantization"))
    for (left, right), (name, key) in zip(axes, keys, strict=True):
        train = {r.name: curve_band(r, "step", f"train_{key}", smooth=True) for r in recipes}
        test = {r.name: curve_band(r, "test_step", f"test_{key}") for r in recipes}
        worst = {r.name: curve_band(r, "step", f"train_{key}_max") for r in recipes}
        _draw(left, _Panel(f"{name}, training", train, worst=worst, log=True), recipes, style)
        _draw(right, _Panel(f"{name}, held-out images", test, log=True, markers=True), recipes, style)
        if any(_has_positive(band) for band in (*train.values(), *test.values())):
            log_axis(left)
            log_axis(right)
        left.set_ylabel("Loss, log scale", color=INK)
    for ax in axes[1]:
        ax.set_xlabel("Training step", color=INK)
    return figure


def usage_figure(recipes: list[RecipeRuns]) -> Figure | None:
    """Codes by rank (left), share of the codebook in use over training (right); None without codes."""
    ranks = {r.name: usage_band(r) for r in recipes}
    shares = {r.name: _share_band(r) for r in recipes}
    shown = [r for r in recipes if ranks[r.name] or shares[r.name]]
    if not shown:
        return None
    style = looks(recipes)
    figure = empty_figure(4.2, shown, style)
    left, right = figure.subplots(1, 2)
    _draw(left, _Panel("How often each code is used", ranks, log=True), shown, style)
    left.set_xlabel("Rank of the code, most used first (log scale)", color=INK)
    left.set_ylabel("Share of all positions, log scale", color=INK)
    if any(_has_positive(band) for band in ranks.values()):
        left.set_xscale("log")
        left.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:g}"))
        log_axis(left, lambda share: f"{100 * share:g}%")
    _draw(right, _Panel("Codes in use during training", shares, markers=True), shown, style)
    right.set_xlabel("Training step", color=INK)
    right.set_ylabel("Share of the codebook", color=INK)
    right.set_ylim(0, 1.05)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG with text as outlines: the same bytes each time, whatever fonts the reader has."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hybridvq", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def empty_figure(height_inches: float, recipes: list[RecipeRuns], style: dict[str, Look]) -> Figure:
    """An empty figure with the legend of `recipes` below, as many columns as their titles leave room for."""
    longest = max(len(recipe.title) for recipe in recipes)
    columns = min(len(recipes), max(1, min(4, 130 // (longest + 8))))
    rows = math.ceil(len(recipes) / columns)
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches + 0.24 * rows))
    figure.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08))
    legend = figure.legend(
        [_handle(style[recipe.name]) for recipe in recipes],
        [recipe.title for recipe in recipes],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _handle(look: Look) -> Line2D:
    return Line2D([], [], color=look.color, linestyle=look.line, marker=look.marker, markersize=4, linewidth=1.6)


def _draw(ax: Axes, panel: _Panel, recipes: list[RecipeRuns], style: dict[str, Look]) -> None:
    keep = _positive if panel.log else np.asarray
    for recipe in recipes:
        band, look = panel.bands[recipe.name], style[recipe.name]
        if band is None:
            continue
        (line,) = ax.plot(band.x, keep(band.mean), color=look.color, linestyle=look.line, linewidth=1.6)
        if worst := panel.worst.get(recipe.name):
            ax.plot(worst.x, keep(worst.high), color=look.color, linewidth=0.5, alpha=0.35)
        if panel.markers:
            line.set(marker=look.marker, markersize=3.5)
        if len(recipe.runs) > 1:
            ax.fill_between(band.x, keep(band.low), keep(band.high), color=look.color, alpha=0.15, linewidth=0)
    plain_axes(ax, panel.title)
    if not any(_has_positive(band) for band in panel.bands.values()):
        ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", va="center", color="#888888")


def plain_axes(ax: Axes, title: str) -> None:
    """A title on the left, a light grid, no box."""
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.grid(True, color="#e6e6e6", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#aaaaaa")
    ax.tick_params(which="both", color="#aaaaaa", labelcolor=INK, labelsize=9)
    ax.tick_params(labelleft=True, labelbottom=True)


def log_axis(ax: Axes, text: Callable[[float], str] = "{:g}".format) -> None:
    """A log y axis with numbers at 1, 2 and 5: powers of ten alone leave one or two on these curves."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _positive(values: Array) -> Array:
    return np.where(values > 0, values, np.nan)


def _has_positive(band: Band | None) -> bool:
    return band is not None and bool((band.mean > 0).any())


def _share_band(recipe: RecipeRuns) -> Band | None:
    """`test_codes_used` over the codebook size."""
    band, size = curve_band(recipe, "test_step", "test_codes_used"), recipe.stat("codebook_size").mean
    if band is None or not size > 0 or not np.isfinite(band.mean).any():
        return None
    return Band(band.x, band.mean / size, band.low / size, band.high / size)
