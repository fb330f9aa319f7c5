"""The page of `experiments.pretrained`, and what its cards are filled into."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def page(result: dict[str, Any]) -> str:
    """The text of README.md."""
    return templates().get_template("pretrained.md.j2").render(result=result, table=short_table(result))


def templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def short_table(result: dict[str, Any]) -> str:
    """A row for each model and setting: raw bits, and of each set bits per pixel and PSNR."""
    sets = list(result["photographs"])
    lines = [
        "| model | raw | " + " | ".join(f"{title}: files | PSNR" for title in sets) + " |",
        "|---|--:|" + "--:|--:|" * len(sets),
    ]
    for row in result["rows"]:
        of = row["photographs"]
        title = f"`{row['model']}`" + (f", quality {row['quality']:g}" if row["quality"] else "")
        raw = of[sets[0]].get("raw_rate_bpp")
        cells = [f"{of[name]['rate_bpp']:.3f} | {of[name]['psnr_db']:.2f} dB" for name in sets]
        lines.append(f"| {title} | {'–' if raw is None else f'{raw:.2f}'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
