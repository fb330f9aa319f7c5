"""Pictures, tables and sentences as HTML; pictures and files travel inside it, so that nothing is written to disk."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hybridvq.printing import printable

SHARP_BELOW = 300  # pixels per side below which an enlarged picture shows its pixels as squares

CSS = """
.hvq { color: #1f2328; }
.hvq p { margin: .4rem 0; max-width: 52rem; }
.hvq .problem { background: #fff4f2; border-left: 3px solid #c4320a; padding: .6rem .9rem; border-radius: 4px; }
.hvq .note { color: #5b6470; font-size: .875rem; }
.hvq .row { display: grid; gap: 1rem; margin: .6rem 0 1.2rem; align-items: start; }
.hvq figure { margin: 0 0 1rem; min-width: 0; }
.hvq .row figure { margin: 0; }
.hvq figure img { display: block; width: 100%; height: auto; max-height: 34rem; border-radius: 3px;
  object-fit: contain; object-position: left top; }
.hvq img.sharp { image-rendering: pixelated; }
.hvq .zoom { display: block; cursor: zoom-in; }
.hvq .zoom input, .hvq .slide input { position: absolute; opacity: 0; }
.hvq .zoom input:focus-visible + img, .hvq .slide:focus-within { outline: 2px solid #2563eb; outline-offset: 2px; }
.hvq .zoom input:checked + img { position: fixed; inset: 0; z-index: 1000; width: 100vw !important; height: 100vh;
  max-width: none !important; max-height: none !important; padding: 1rem; background: rgba(15, 17, 20, .94);
  object-position: center; cursor: zoom-out; }
.hvq .slide { position: relative; --at: 50%; width: min(100%, calc(38rem * var(--ratio))); }
.hvq .slide img { max-height: none; }
.hvq .slide img + img { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--at)); }
.hvq .slide input { inset: 0; width: 100%; height: 100%; margin: 0; cursor: ew-resize; }
.hvq .slide::after { content: ""; position: absolute; top: 0; bottom: 0; left: calc(var(--at) - 1px); width: 2px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.hvq .slide b { position: absolute; top: .6rem; left: .6rem; padding: .1rem .5rem; border-radius: 4px; color: #fff;
  background: rgba(15, 17, 20, .7); font-size: .875rem; font-weight: 600; pointer-events: none; }
.hvq .slide b + b { left: auto; right: .6rem; }
.hvq .wide { display: grid; grid-template-columns: 2fr 1fr; gap: 1.5rem; align-items: start; margin: .6rem 0 1.2rem; }
.hvq .wide figure { margin: 0; }
.hvq .wide th, .hvq .wide td:not(:first-child) { white-space: nowrap; }
.hvq .wide th:last-child, .hvq .wide td:last-child { padding-right: 0; }
.hvq .wide table { width: 100%; }
@media (max-width: 700px) {
  .hvq .wide { grid-template-columns: 1fr; }
  .hvq .row { grid-template-columns: 1fr 1fr !important; }
}
.hvq .codes { display: grid; grid-template-columns: repeat(auto-fill, var(--side)); gap: 2px; margin: .6rem 0; }
.hvq .codes i { width: var(--side); height: var(--side); cursor: crosshair; image-rendering: pixelated;
  background-image: var(--sheet); background-size: calc(var(--across) * var(--side)) auto;
  background-position: calc(-1 * (var(--x) + var(--middle)) * var(--side)) calc(-1 * var(--y) * var(--side)); }
.hvq .codes i:hover { outline: 2px solid #2563eb; }
.hvq .codes i:hover::before { content: attr(data-text); position: fixed; right: 1.5rem; bottom: 1.5rem; z-index: 1001;
  width: calc(var(--count) * 8rem); padding: 8.6rem 0 .3rem; border: 4px solid #fff; background: #fff; color: #1f2328;
  box-shadow: 0 2px 16px rgba(0, 0, 0, .35); font: 600 .875rem/1.3 sans-serif; text-align: center; min-width: 8rem;
  box-sizing: content-box; }
.hvq .codes i:hover::after { content: ""; position: fixed; right: calc(1.5rem + 4px); z-index: 1002; height: 8rem;
  bottom: calc(1.5rem + 4px + 1.9rem); width: calc(var(--count) * 8rem); background-image: var(--sheet);
  background-size: calc(var(--across) * 8rem) auto; image-rendering: pixelated;
  background-position: calc(-1 * var(--x) * 8rem) calc(-1 * var(--y) * 8rem); }
.hvq figcaption { font-size: .875rem; color: #5b6470; margin-top: .3rem; }
.hvq figcaption b { color: #1f2328; font-weight: 600; }
.hvq .box { overflow-x: auto; margin-bottom: 1rem; }
.hvq table, .hvq table * { border: 0 !important; }
.hvq table { border-collapse: collapse; margin: 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
.hvq table th, .hvq table td { padding: .35rem .9rem .35rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid #e3e5e8 !important; }
.hvq table th { font-weight: 600; }
.hvq table thead th { border-bottom: 1.5px solid #1f2328 !important; vertical-align: bottom; }
.hvq table th:first-child, .hvq table td:first-child, .hvq table.text th, .hvq table.text td { text-align: left; }
.hvq table.text td { overflow-wrap: anywhere; }
.hvq a.download { display: inline-block; background: #2563eb; color: #fff; padding: .5rem 1rem; border-radius: 6px;
  text-decoration: none; font-weight: 600; margin: .4rem 0; }
"""


def escape(text: str) -> str:
    """The text as HTML shows it, without what no font has."""
    return html.escape(printable(text))


def block(*parts: str) -> str:
    """Parts under the page's style."""
    return f'<div class="hvq">{"".join(parts)}</div>'


def problem(sentence: str) -> str:
    """What went wrong, in one sentence."""
    return block(f'<p class="problem" role="alert">{escape(sentence)}</p>')


def paragraph(sentence: str) -> str:
    return f"<p>{escape(sentence)}</p>"


def note(sentence: str) -> str:
    """A remark in small print; nothing for an empty one."""
    return f'<p class="note">{escape(sentence)}</p>' if sentence else ""


def row(parts: Sequence[str], columns: int | None = None) -> str:
    """Parts side by side, in columns of the same width."""
    return (
        f'<div class="row" style="grid-template-columns: repeat({columns or len(parts)}, 1fr)">{"".join(parts)}</div>'
    )


def figure(pixels: np.ndarray, title: str, text: str = "", width: int | None = None) -> str:
    """A picture (H, W, 3) uint8 with its caption, as wide as its column or `width` pixels; a click magnifies it."""
    style = f' style="width: {width}px; max-width: 100%; max-height: none"' if width else ""
    image = f'<label class="zoom"><input type="checkbox">{picture(pixels, title, style, bool(width))}</label>'
    return f"<figure>{image}{caption(title, text)}</figure>"


def slider(left: np.ndarray, right: np.ndarray, titles: tuple[str, str], text: str) -> str:
    """Two pictures (H, W, 3) uint8 over each other, of which a line, moved by mouse or arrow keys, shows the left part
    of one and the right part of the other."""
    move = "this.parentNode.style.setProperty('--at', this.value + '%')"
    control = f'<input type="range" step="any" oninput="{move}" aria-label="how much is of {escape(titles[0])}">'
    names = "".join(f"<b>{escape(title)}</b>" for title in titles)
    images = "".join(picture(pixels, title) for pixels, title in zip((left, right), titles, strict=True))
    style = f"--ratio: {left.shape[1] / left.shape[0]:.4f}"
    below = caption("Drag the line.", text)
    return f'<figure><div class="slide" style="{style}">{images}{control}{names}</div>{below}</figure>'


def picture(pixels: np.ndarray, title: str, style: str = "", sharp: bool = False) -> str:
    """An image, whose pixels are squares where it is small or is to be `sharp`."""
    kind = ' class="sharp"' if sharp or max(pixels.shape[:2]) < SHARP_BELOW else ""
    return f'<img{kind}{style} src="{png_uri(pixels)}" alt="{escape(title)}">'


def caption(title: str, text: str) -> str:
    return f"<figcaption><b>{escape(title)}</b> {escape(text)}</figcaption>"


def wide(first: str, second: str) -> str:
    """Two parts side by side, the first twice as wide as the second."""
    return f'<div class="wide">{first}<div>{second}</div></div>'


def tiles(sheet: np.ndarray, places: Sequence[tuple[int, int]], texts: Sequence[str], count: int, side: int) -> str:
    """Square tiles in a grid, `side` pixels each, of which the one under the pointer is shown large with its text.

    Args:
        sheet: (H, W, 3) uint8 that holds them all without gaps, `count` versions of each side by side.
        places: column and row of each tile's first version in the sheet, in tiles. The middle version is shown.
        texts: one for each.
        count: versions of a tile.
        side: of a tile in the grid, in pixels of the screen.
    """
    across = sheet.shape[1] // (sheet.shape[0] // (1 + max(y for _, y in places)))
    numbers = f"--side:{side}px;--count:{count};--middle:{count // 2};--across:{across};--sheet:url({png_uri(sheet)})"
    cells = "".join(
        f'<i style="--x:{x};--y:{y}" data-text="{escape(text)}"></i>'
        for (x, y), text in zip(places, texts, strict=True)
    )
    return f'<div class="codes" style="{numbers}">{cells}</div>'


def drawing(svg: bytes, title: str) -> str:
    """An SVG, which as an image can run nothing."""
    return (
        f'<figure><img style="max-height: none" src="{data_uri("image/svg+xml", svg)}" alt="{escape(title)}"></figure>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of texts, its numbers on the right; those of kind "text" on the left."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>" for cells in rows)
    return f'<div class="box"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def download(content: bytes, name: str, label: str) -> str:
    """A link that saves a file."""
    uri = data_uri("application/octet-stream", content)
    return f'<a class="download" download="{escape(name)}" href="{uri}">{escape(label)}</a>'


def png_uri(pixels: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return data_uri("image/png", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
