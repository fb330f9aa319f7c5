"""The tab Compress: a picture to an `.hvq` file, beside JPEG and WebP of about its size; and such a file's picture."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvq.app import markup
from hybridvq.app.models import Model
from hybridvq.app.picture import PIXELS, Picture
from hybridvq.app.reconstruct import mse
from hybridvq.codec import Codec, describe
from hybridvq.codec.choose import Chooser
from hybridvq.errors import CodecError
from hybridvq.metrics import psnr_db
from hybridvq.settings import CodecSettings

QUALITIES = {"JPEG": (1, 95), "WebP": (0, 100)}
TARGETS = (0.0001, 100.0)  # bits per pixel
MAX_PIXELS = 4 * PIXELS  # of an `.hvq` file's picture


@dataclass(frozen=True)
class Coded:
    """A picture as a format keeps it: the file, the pixels (H, W, 3) uint8 that come back, and how it was set."""

    title: str
    data: bytes
    pixels: np.ndarray
    setting: str

    def cells(self, original: np.ndarray) -> list[str]:
        """Of the table: format, bytes, bits per pixel, PSNR, setting."""
        rate_bpp = 8 * len(self.data) / (original.shape[0] * original.shape[1])
        quality_db = psnr_db(mse(original, self.pixels))
        return [self.title, f"{len(self.data):,}", f"{rate_bpp:.3f}", f"{quality_db:.2f} dB", self.setting]


def codec_of(model: Model) -> Codec:
    """The model's codec.

    Raises:
        CodecError: it has none, in the words that say what is missing.
    """
    if model.codec is None:
        raise CodecError(model.problem)
    return model.codec


def highest_rate_weight(codec: Codec) -> float:
    """A lambda beyond which pictures fall apart: a fortieth of the mean square of the vectors that are quantized."""
    return float(f"{Chooser(codec.tokenizer.quantizer, codec.tables, 1, 0, 0.0).power() / 40:.1g}")


def compress(model: Model, picture: Picture, rate_weight: float, target_bpp: float | None) -> list[Coded]:
    """The picture's `.hvq` file, by lambda or by a target, and those of QUALITIES nearest to its size.

    Raises:
        CodecError: the model has no tables.
        ConfigError: the target is out of reach.
    """
    codec = codec_of(model)
    settings = CodecSettings(target_bpp=target_bpp) if target_bpp else CodecSettings(rate_weight=rate_weight)
    data = codec.compress(picture.pixels, settings)
    pixels = np.asarray(codec.decompress(data).convert("RGB"))
    setting = f"target {target_bpp:g} bits per pixel" if target_bpp else f"lambda {rate_weight:g}"
    return [Coded(".hvq", data, pixels, setting), *(rival(name, picture.pixels, len(data)) for name in QUALITIES)]


def rival(name: str, pixels: np.ndarray, size: int) -> Coded:
    """The picture in a format of QUALITIES, at the quality whose file is nearest to `size` bytes."""
    encode = cache(partial(encoded, name, Image.fromarray(pixels)))
    quality = nearest_quality(lambda q: len(encode(q)), size, *QUALITIES[name])
    with Image.open(io.BytesIO(encode(quality))) as image:
        return Coded(name, encode(quality), np.array(image.convert("RGB")), f"quality {quality}")


def encoded(name: str, image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=name, quality=quality, optimize=True)
    return buffer.getvalue()


def nearest_quality(size_at: Callable[[int], int], size: int, low: int, high: int) -> int:
    """The quality in low..high whose size is nearest, by bisection; sizes grow with quality."""
    first = low
    while low < high:
        middle = (low + high) // 2
        if size_at(middle) < size:
            low = middle + 1
        else:
            high = middle
    return min((max(first, low - 1), low), key=lambda quality: abs(size_at(quality) - size))


def render(model: Model, picture: Picture, coded: list[Coded]) -> str:
    """The pictures side by side, the table and the file to save."""
    own = coded[0]
    head = ["Format", "Bytes", "Bits a pixel", "PSNR", "Setting"]
    name = f"{Path(picture.name).stem}.hvq"
    figures = [markup.figure(picture.pixels, "Original", picture.name)]
    for c in coded:
        _, size, _, quality, _ = c.cells(picture.pixels)
        figures.append(markup.figure(c.pixels, c.title, f"{size} bytes, {quality}"))
    return markup.block(
        markup.note(picture.note),
        markup.row(figures),
        markup.table(head, [c.cells(picture.pixels) for c in coded]),
        markup.note(f"JPEG and WebP at the quality whose file is nearest in size; .hvq by {model.title}."),
        markup.download(own.data, name, f"Download {name} ({len(own.data):,} bytes)"),
    )


def open_file(model: Model, path: str | Path) -> str:
    """The picture of an `.hvq` file and what each of its bytes is for.

    Raises:
        CodecError: it is no whole file, or of another model, or its picture has more than MAX_PIXELS.
    """
    codec, name = codec_of(model), Path(path).name
    data = Path(path).read_bytes()
    parts = describe(data, name, MAX_PIXELS)
    pixels = np.asarray(codec.decompress(data, name, MAX_PIXELS).convert("RGB"))
    rate = 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
    rows = [
        *([p.name, f"{p.size:,}", p.value] for p in parts),
        ["file", f"{len(data):,}", f"{rate:.3f} bits per pixel"],
    ]
    shown = markup.figure(pixels, name, f"{pixels.shape[1]}x{pixels.shape[0]} pixels")
    return markup.block(markup.row([shown, markup.table(["Part", "Bytes", "What it says"], rows, "text")]))
