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
    """A picture (H, W, 3) uint8 with its caption, as wide as its column or `width` pixels."""
    sharp = ' class="sharp"' if width or max(pixels.shape[:2]) < SHARP_BELOW else ""
    style = f' style="width: {width}px; max-width: 100%; max-height: none"' if width else ""
    image = f'<img{sharp}{style} src="{png_uri(pixels)}" alt="{escape(title)}">'
    return f"<figure>{image}<figcaption><b>{escape(title)}</b> {escape(text)}</figcaption></figure>"


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
