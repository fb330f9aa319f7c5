"""The tab Compress: a picture to an `.hvq` file, beside JPEG and WebP of about its size; and such a file's picture."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from hybridvq.app import markup
from hybridvq.app.models import Model, Models
from hybridvq.app.picture import PIXELS, Picture
from hybridvq.app.values import choice, number, whole
from hybridvq.codec import Codec, Draw, Part, describe, truncate
from hybridvq.codec.choose import Chooser
from hybridvq.codec.rivals import file_near
from hybridvq.errors import CodecError
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse
from hybridvq.settings import CodecSettings

RIVALS: tuple[Literal["JPEG", "WebP"], ...] = ("JPEG", "WebP")
HVQ = ".hvq"
QUALITY, LAMBDA, TARGET = "quality", "lambda", "bits per pixel"  # what a file is set by
OWN_QUALITIES = (1, 100)
TARGETS = (0.0001, 100.0)  # bits per pixel
LAST_SEED, WARMEST = 2**32 - 1, 1.5  # of drawn details
MAX_PIXELS = 4 * PIXELS  # of an `.hvq` file's picture
LAYERS = (
    "A file holds its codes first, and opens even if it ends there. Drawn details are random, by what the codes "
    "predict; the whole file holds those of the picture."
)


@dataclass(frozen=True)
class Coded:
    """A picture as a format keeps it: the file, the pixels (H, W, 3) uint8 that come back, and how it was set."""

    title: str
    data: bytes
    pixels: np.ndarray
    setting: str

    def cells(self, original: np.ndarray) -> list[str]:
        """The cells of a row of the table: format, bytes, bits per pixel, PSNR, setting."""
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


def dials_of(model: Model) -> tuple[str, str]:
    """What a model's files can be set by, the first if nothing is said."""
    return (QUALITY if model.is_hybrid else LAMBDA), TARGET


def settings_of(model: Model, dial: Any, quality: Any, rate_weight: Any, target_bpp: Any) -> CodecSettings:
    """The settings of the page's controls, of which the dial says which one counts.

    Raises:
        CodecError: the model has no tables.
        ConfigError: a control has no such value.
    """
    codec, by = codec_of(model), choice("the dial", dial, dials_of(model))
    if by == TARGET:
        return CodecSettings(target_bpp=number(TARGET, target_bpp, *TARGETS))
    if by == QUALITY:
        return CodecSettings(quality=number("the quality", quality, *OWN_QUALITIES))
    return CodecSettings(rate_weight=number(LAMBDA, rate_weight, 0, highest_rate_weight(codec)))


def draw_of(seed: Any, temperature: Any) -> Draw:
    """How details are drawn, of the page's controls.

    Raises:
        ConfigError: a control has no such value.
    """
    return Draw(whole("the seed", seed, 0, LAST_SEED), number("the temperature", temperature, 0, WARMEST))


def highest_rate_weight(codec: Codec) -> float:
    """A lambda beyond which pictures fall apart: a fortieth of the mean square of the vectors that are quantized."""
    return float(f"{Chooser(codec.tokenizer.quantizer, codec.tables, 1, 0.0).power() / 40:.1g}")


def compress(model: Model, picture: Picture, settings: CodecSettings, draw: Draw) -> list[Coded]:
    """What the picture's `.hvq` file shows, and the files of RIVALS nearest to its size.

    Raises:
        CodecError: the model has no tables.
        ConfigError: the target is out of reach.
    """
    codec = codec_of(model)
    data = codec.compress(picture.pixels, settings)
    if settings.target_bpp:
        setting = f"target {settings.target_bpp:g} {TARGET}"
    elif settings.quality:
        setting = f"{QUALITY} {settings.quality:g}"
    else:
        setting = f"{LAMBDA} {settings.rate_weight:g}"
    shown = readings(codec, data, draw, setting)
    return [*shown, *(rival(name, picture.pixels, len(data)) for name in RIVALS)]


def readings(codec: Codec, data: bytes, draw: Draw, setting: str = "", name: str = "this file") -> list[Coded]:
    """What a file shows: of a hybrid model its codes alone, these with details drawn, and last the whole.

    Raises:
        CodecError: it is no whole file of this codec, or its picture has more than MAX_PIXELS.
    """

    def read(part: bytes, draw: Draw | None = None) -> np.ndarray:
        return np.asarray(codec.decompress(part, name, MAX_PIXELS, draw=draw).convert("RGB"))

    own = Coded(HVQ, data, read(data), setting)
    if not codec.is_hybrid:
        return [own]
    codes = truncate(data, 0, name)
    drawn = f"seed {draw.seed}, temperature {draw.temperature:g}"
    return [
        Coded("Codes alone", codes, read(codes), "preview"),
        Coded("Codes, details drawn", codes, read(codes, draw), drawn),
        own,
    ]


def rival(name: Literal["JPEG", "WebP"], pixels: np.ndarray, size: int) -> Coded:
    """The picture in another format, at the quality whose file is nearest to `size` bytes."""
    data, quality = file_near(name, pixels, size)
    with Image.open(io.BytesIO(data)) as image:
        return Coded(name, data, np.array(image.convert("RGB")), f"quality {quality}")


def render(model: Model, picture: Picture, coded: list[Coded]) -> str:
    """The file's picture over JPEG's, the table, the file to save, and the other pictures."""
    own, jpeg = (next(c for c in coded if c.title == title) for title in (HVQ, "JPEG"))
    head = ["Format", "Bytes", "Bits per pixel", "PSNR", "Setting"]
    name = f"{Path(picture.name).stem}.hvq"
    below = [markup.figure(picture.pixels, "Original", picture.name)]
    for c in coded:
        if c not in (own, jpeg):
            _, size, _, quality, _ = c.cells(picture.pixels)
            below.append(markup.figure(c.pixels, c.title, f"{size} bytes, {quality}"))
    sizes = f"JPEG in {len(jpeg.data):,} bytes, {own.title} in {len(own.data):,}"
    return markup.block(
        markup.note(picture.note),
        markup.wide(
            markup.slider(jpeg.pixels, own.pixels, (jpeg.title, own.title), sizes),
            markup.table(head[:-1], [c.cells(picture.pixels)[:-1] for c in coded])
            + markup.note(f"{own.title} by {model.title}, {own.setting}; JPEG and WebP at the quality nearest in size.")
            + markup.download(own.data, name, f"Download {name} ({len(own.data):,} bytes)"),
        ),
        markup.row(below, max(3, len(below))),
        markup.note(LAYERS if model.is_hybrid else ""),
    )


def open_file(models: Models, path: str | Path, seed: Any, temperature: Any) -> str:
    """What an `.hvq` file of any of the models shows, and what each of its bytes is for.

    Raises:
        CodecError: it is no whole file, or of another model, or its picture has more than MAX_PIXELS.
        ConfigError: a control has no such value.
    """
    name, data, draw = Path(path).name, Path(path).read_bytes(), draw_of(seed, temperature)
    parts = describe(data, name, MAX_PIXELS)
    coded = readings(maker_of(models, parts), data, draw, name=name)
    height, width = coded[-1].pixels.shape[:2]
    rate = 8 * len(data) / (height * width)
    rows = [
        *([p.name, f"{p.size:,}", p.value] for p in parts),
        ["file", f"{len(data):,}", f"{rate:.3f} bits per pixel"],
    ]
    figures = [markup.figure(c.pixels, c.title, f"{len(c.data):,} bytes, {c.setting}") for c in coded[:-1]]
    figures.append(markup.figure(coded[-1].pixels, name, f"{width}x{height} pixels"))
    table = markup.table(["Part", "Bytes", "What it says"], rows, "text")
    if len(figures) == 1:
        return markup.block(markup.row([*figures, table]))
    return markup.block(markup.row(figures), table)


def maker_of(models: Models, parts: list[Part]) -> Codec:
    """The codec of the model that a file names, or the first there is, which then says what is wrong.

    Raises:
        CodecError: no model has tables.
    """
    model_id = next(part.value for part in parts if part.name == "model")
    codecs = [model.codec for model in models.named.values() if model.codec is not None]
    made = [codec for codec in codecs if codec.tables.model.startswith(model_id)]
    return (made or codecs or [codec_of(models.hybrid)])[0]
