"""The pictures of a report as one image file, for documents that cannot hold the page's grid."""

import io
import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hybridvq.report.pictures import Images, Pictures, psnr_db, psnr_text
from hybridvq.report.style import bits_text

_ROWS = 4
_GAP_PX = 8
_CAPTION_PX = 20
_HEADER_PX = 84
_DPI = 100


def montage_png(pictures: Pictures) -> bytes:
    """The first four originals, their reconstructions and error maps, as PNG at twice its layout's size."""
    buffer = io.BytesIO()
    _montage(pictures).savefig(buffer, format="png", dpi=2 * _DPI, metadata={"Software": None})
    return buffer.getvalue()


def _montage(pictures: Pictures) -> Figure:
    originals, zoom = pictures.originals[:_ROWS], pictures.zoom
    height, width = zoom * originals.shape[1], zoom * originals.shape[2]
    step_x, step_y = width + _GAP_PX, 2 * height + _CAPTION_PX + _GAP_PX
    columns = 1 + len(pictures.columns)
    shape = (_HEADER_PX + len(originals) * step_y + _CAPTION_PX, _GAP_PX + columns * step_x, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    figure = Figure(figsize=(shape[1] / _DPI, shape[0] / _DPI), dpi=_DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        ax.text(x, y, text, parse_math=False, color="#333333", fontsize=8, **style)

    def paste(x: int, y: int, image: Images) -> None:
        canvas[y : y + height, x : x + width] = image.repeat(zoom, axis=0).repeat(zoom, axis=1)

    for column in range(columns):
        x = _GAP_PX + column * step_x
        write(x, _HEADER_PX - 6, _heading(pictures, column, width), va="bottom")
        for row, original in enumerate(originals):
            y = _HEADER_PX + row * step_y
            if column == 0:
                paste(x, y, original)
                continue
            shown = pictures.columns[column - 1]
            if shown.images is not None:
                paste(x, y, shown.images[row])
                paste(x, y + height + 2, pictures.error_map(shown, row))
                write(x, y + 2 * height + 5, psnr_text(psnr_db(original, shown.images[row])), va="top")
    note = f"Below each reconstruction its absolute error, black 0 to yellow {pictures.scale} of 255."
    write(_GAP_PX, shape[0] - 6, note, va="bottom")
    ax.imshow(canvas, interpolation="nearest", extent=(0, shape[1], shape[0], 0), aspect="auto")
    return figure


def _heading(pictures: Pictures, column: int, width: int) -> str:
    """ "Original", or a recipe's title in lines that fit above its pictures, and its bits per position."""
    if column == 0:
        return "Original"
    recipe = pictures.columns[column - 1].recipe
    lines = textwrap.wrap(recipe.title, max(10, width // 7), max_lines=4, placeholder="…")
    return "\n".join([*lines, f"{bits_text(recipe.stat('bits_per_position').mean)} bits"])
