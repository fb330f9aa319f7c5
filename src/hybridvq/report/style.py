"""How a recipe looks in every figure and on the page, and how numbers are written."""

import math
from dataclasses import dataclass
from typing import Literal

from hybridvq.report.result import REFERENCE, RecipeRuns

MISSING = "–"

# Okabe and Ito's palette without its yellow, unreadable on white, then Tol's "muted" where it differs.
_PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#332288",
    "#882255",
    "#999933",
    "#555555",
    "#44AA99",
    "#AA4499",
    "#117733",
    "#000000",
)
_MARKERS = "os^Dv<>PXh*pd8"
Line = Literal["-", "--", ":"]
_LINES: dict[str, Line] = {"published": "--", REFERENCE: ":"}
_DASHES: dict[Line, str] = {"--": "6 3", ":": "2 3", "-": "none"}
_GROUP_WORDS = {"published", "healthy"}


@dataclass(frozen=True)
class Look:
    """Color (hex), matplotlib line style and marker of a recipe."""

    color: str
    line: Line
    marker: str

    @property
    def dashes(self) -> str:
        """The line style as an SVG stroke-dasharray."""
        return _DASHES[self.line]


def looks(recipes: list[RecipeRuns]) -> dict[str, Look]:
    """A look for every recipe name; the published and the healthy version of one idea share their color."""
    index: dict[str, int] = {}
    taken: set[tuple[str, str]] = set()
    chosen = {}
    for recipe in recipes:
        line: Line = _LINES.get(recipe.group, "-")
        family = "-".join(word for word in recipe.name.split("-") if word not in _GROUP_WORDS)
        key = recipe.name if (family, line) in taken else family
        taken.add((key, line))
        i = index.setdefault(key, len(index))
        chosen[recipe.name] = Look(_PALETTE[i % len(_PALETTE)], line, _MARKERS[i % len(_MARKERS)])
    return chosen


def significant_decimals(value: float, digits: int = 3) -> int:
    """Decimals that show `digits` significant digits of `value`."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent; "–" if it is not finite."""
    return f"{value:,.{significant_decimals(value, digits)}f}" if math.isfinite(value) else MISSING


def bits_text(value: float) -> str:
    """Bits per position: one decimal below 100, none above; "–" if not finite."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
