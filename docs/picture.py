"""Draw the picture of the README: sample photographs as codes, codes and details, and beside others at equal bytes.

    python docs/picture.py docs/picture.jpg

Whole photographs are coded, and to them the numbers belong; a part of each is shown, so that pixels can be seen. The
file of the VQ-VAE sets the bytes: the hybrid model gets the best quality in no more, JPEG the nearest.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hybridvq import Codec, CodecSettings
from hybridvq.app.compress import rival
from hybridvq.codec import Draw, layered
from hybridvq.data import photo_files, read_image
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse

HYBRID, VQ = "photos", "photos-vq"
PARTS = {"flower": (80, 158), "chelsea": (60, 122)}  # top and left of what is shown
PART, ZOOM = 168, 2  # pixels of a side, and how many times as large each is shown
SIDE, GAP, HEAD, LINE = PART * ZOOM, 14, 84, 44  # pixels: of a part as it is shown, between parts, and above them
FONT, INK = 29, (31, 35, 40)
SAME = 0.05  # files whose bytes differ by no more than this share count as the same size


@dataclass(frozen=True)
class Column:
    """A photograph as one column shows it: what it is, the bytes read, the pixels, and a remark."""

    title: str
    size: int
    pixels: np.ndarray
    remark: str = ""

    def numbers(self, original: np.ndarray) -> str:
        """Bits per pixel and PSNR."""
        if self.pixels is original:
            return "24 bpp"
        rate_bpp = 8 * self.size / (original.shape[0] * original.shape[1])
        return f"{self.remark}\n{rate_bpp:#.2g} bpp, {psnr_db(mse(self.pixels, original)):.1f} dB"


def main(target: Path, vq: str = VQ) -> None:
    hybrid, vector = Codec.load(HYBRID, "cpu"), Codec.load(vq, "cpu")
    photographs = {path.stem: read_image(path) for path in photo_files()}
    rows = [(columns(photographs[name], hybrid, vector), place) for name, place in PARTS.items()]
    drawn(rows).save(target, quality=90, subsampling=0)


def columns(pixels: np.ndarray, hybrid: Codec, vector: Codec) -> list[Column]:
    """A photograph (H, W, 3) uint8 in all columns, left to right."""
    data = vector.compress(pixels)
    own = hybrid.compress(pixels, CodecSettings(target_bpp=8 * len(data) / (pixels.shape[0] * pixels.shape[1])))
    jpeg = rival("JPEG", pixels, len(data))
    larger = jpeg.setting == "quality 1" and len(jpeg.data) > (1 + SAME) * len(data)
    codes = layered.truncate(own, 0)
    preview, guess = hybrid.decompress(codes), hybrid.decompress(codes, draw=Draw())
    return [
        Column("original", pixels.size, pixels),
        Column("codes alone\n(preview)", len(codes), rgb(preview)),
        Column("codes, details\ndrawn at random", len(codes), rgb(guess)),
        Column("hybrid: codes\nand details", len(own), rgb(hybrid.decompress(own))),
        Column("VQ-VAE,\nsame bytes", len(data), rgb(vector.decompress(data))),
        Column("JPEG, nearest\nin bytes", len(jpeg.data), jpeg.pixels, "lowest quality:" if larger else ""),
    ]


def rgb(image: Image.Image) -> np.ndarray:
    return np.array(image.convert("RGB"))


def drawn(rows: list[tuple[list[Column], tuple[int, int]]]) -> Image.Image:
    """The parts of all columns, a row for each photograph, under their titles and numbers."""
    font, line = ImageFont.load_default(FONT), LINE * (2 if any(c.remark for shown, _ in rows for c in shown) else 1)
    step = line + SIDE + GAP
    canvas = Image.new("RGB", (len(rows[0][0]) * (SIDE + GAP) - GAP, HEAD + len(rows) * step - GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (shown, (top, left)) in enumerate(rows):
        for j, column in enumerate(shown):
            x, y = j * (SIDE + GAP), HEAD + i * step
            if not i:
                pen.text((x + SIDE / 2, HEAD / 2), column.title, INK, font, "mm", align="center")
            pen.text((x + SIDE / 2, y + line - GAP), column.numbers(shown[0].pixels), INK, font, "md", align="center")
            part = Image.fromarray(column.pixels[top : top + PART, left : left + PART])
            canvas.paste(part.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y + line))
    return canvas


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
