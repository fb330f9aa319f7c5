"""The tab Reconstruct: a picture through two tokenizers and back, what is lost, and where which tokens were used.

pixels ──pad──► x ──encoder──► z ──quantizer──► tokens ──dequantize──► s z_hat ──decoder──► x_hat ──► Shown
                                                                       ▲
                                                                gain_scale s
"""

from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from torch import Tensor

from hybridvq.app import markup
from hybridvq.app.models import Model
from hybridvq.app.picture import Picture
from hybridvq.codec import CONTEXTUAL, TokenCoder
from hybridvq.devices import evaluating
from hybridvq.evaluation import raw_bits
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse, to_input, to_pixels
from hybridvq.quantizers import Tokens
from hybridvq.report.pictures import absolute_error, colored
from hybridvq.tiles import reflect
from hybridvq.tokenizer import Tokenizer

GOLDEN = 0.61803398875  # successive multiples of it are spread evenly over the hues


@dataclass(frozen=True)
class Shown:
    """What a tokenizer makes of a picture.

    Attributes:
        pixels: (H, W, 3) uint8.
        codes: (h, w) int64, of the first stage.
        gains: (h, w) float32, likewise, as they were decoded; None without.
        mse: on [-1, 1], of pixels.
        raw_bpp: bits per pixel before entropy coding.
        codec_bpp: bits per pixel that the codec's tables give these tokens; None without tables.
    """

    pixels: np.ndarray
    codes: np.ndarray
    gains: np.ndarray | None
    mse: float
    raw_bpp: float
    codec_bpp: float | None


@torch.inference_mode()
def encode(model: Model, picture: Picture) -> Tensor:
    """z (1, D, h, w) of a picture, extended by reflection to whole positions as the codec does."""
    f = model.tokenizer.downsampling
    rows, columns = (reflect(side, f) for side in picture.size)
    with evaluating(model.tokenizer) as device:
        return model.tokenizer.encoder(to_input(picture.pixels[np.ix_(rows, columns)], device)[None])


@torch.inference_mode()
def decode(model: Model, picture: Picture, z: Tensor, gain_scale: float = 1.0) -> Shown:
    """What comes back of z, with all gains scaled.

    Args:
        model: of which `encode` made z.
        picture: what z is of.
        z: (1, D, h, w).
        gain_scale: s, what every gain is multiplied by before decoding.
    """
    tokenizer = model.tokenizer
    with evaluating(tokenizer):
        tokens = tokenizer.quantizer(z).tokens
        x_hat = decode_scaled(tokenizer, tokens, gain_scale)
    height, width = picture.size
    pixels = to_pixels(x_hat)[0, :height, :width].numpy()
    assert tokens.codes is not None
    positions = tokens.codes[0, 0].numel()
    return Shown(
        pixels=pixels,
        codes=tokens.codes[0, 0].cpu().numpy(),
        gains=first_gains(model, tokens, gain_scale),
        mse=mse(picture.pixels, pixels),
        raw_bpp=raw_bits(tokenizer, tokens) * positions / (height * width),
        codec_bpp=codec_bits(model, tokens) / (height * width) if model.codec else None,
    )


def decode_scaled(tokenizer: Tokenizer, tokens: Tokens, gain_scale: float) -> Tensor:
    """x_hat of tokens whose gains are multiplied; z_hat is linear in them."""
    quantizer = tokenizer.quantizer
    return tokenizer.decoder(quantizer.from_code(gain_scale * quantizer.read(tokens))).float()


def first_gains(model: Model, tokens: Tokens, gain_scale: float) -> np.ndarray | None:
    """(h, w), the gains of the first stage; None where there are none."""
    if tokens.gains is None:
        return None
    gains = tokens.gains[0, 0].cpu()
    if model.space.level_values is not None:
        gains = model.space.level_values[0].cpu()[gains]
    return (gain_scale * gains).numpy()


def codec_bits(model: Model, tokens: Tokens) -> float:
    """What the codec spends on the tokens of one picture, beside its header of some forty bytes."""
    assert model.codec is not None
    assert tokens.codes is not None
    gains = None if tokens.gains is None else tokens.gains[0].cpu().numpy()
    coder = TokenCoder(model.codec.tables, CONTEXTUAL)
    return float(coder.cost_bits(tokens.codes[0].cpu().numpy(), gains).sum())


def code_map(codes: np.ndarray) -> np.ndarray:
    """A color for each code, (h, w) int64 to (h, w, 3) uint8; neighboring numbers look unlike each other."""
    hue, light = codes * GOLDEN % 1, 0.65 + 0.35 * (codes * GOLDEN**2 * 7 % 1)
    colors = matplotlib.colors.hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.6), light], -1))
    return (255 * colors).round().astype(np.uint8)


def gain_map(gains: np.ndarray) -> np.ndarray:
    """Gains (h, w) from dark, the lowest, to bright, the highest, (h, w, 3) uint8."""
    low, high = float(gains.min()), float(gains.max())
    return colored((gains.astype(float) - low) / ((high - low) or 1.0))


def render(picture: Picture, models: tuple[Model, Model], shown: tuple[Shown, Shown]) -> str:
    """The pictures of baseline and model beside the original, their errors and maps, and the table of numbers."""
    errors = [absolute_error(picture.pixels, s.pixels) for s in shown]
    scale = max(8.0, *(float(np.percentile(error, 99.5)) for error in errors))
    named = [(f"{model.title}:", s) for model, s in zip(models, shown, strict=True)]
    gains = shown[1].gains
    parts = [
        markup.figure(picture.pixels, "Original", picture.name),
        *(markup.figure(s.pixels, title, f"{psnr_db(s.mse):.2f} dB") for title, s in named),
        numbers(models, shown),
        *(
            markup.figure(colored(error / scale), f"{title} error", f"black 0 to yellow {scale:.0f} of 255")
            for (title, _), error in zip(named, errors, strict=True)
        ),
        markup.block(markup.note(f"{models[1].title} has no gains."))
        if gains is None
        else markup.figure(gain_map(gains), "Gains", f"{gains.min():.2f} (black) to {gains.max():.2f} (yellow)"),
        *(
            markup.figure(code_map(s.codes), f"{title} codes", f"{len(np.unique(s.codes))} used, a color each")
            for title, s in named
        ),
    ]
    return markup.block(markup.note(picture.note), markup.row(parts, 3))


def numbers(models: tuple[Model, Model], shown: tuple[Shown, Shown]) -> str:
    """The table: error and bits of both."""
    lines = [
        ("MSE on [-1, 1]", [f"{s.mse:.5f}" for s in shown]),
        ("PSNR", [f"{psnr_db(s.mse):.2f} dB" for s in shown]),
        ("Bits per pixel, raw", [f"{s.raw_bpp:.3f}" for s in shown]),
        ("Bits per pixel, codec", ["–" if s.codec_bpp is None else f"{s.codec_bpp:.3f}" for s in shown]),
        ("Codes", [f"{m.space.codebook_size:,}" for m in models]),
        ("Gain levels", [gain_kind(m) for m in models]),
    ]
    return markup.table(["", *(model.title for model in models)], [[name, *values] for name, values in lines])


def gain_kind(model: Model) -> str:
    if model.space.levels:
        return f"{model.space.levels}"
    return "float" if model.space.gain == "float" else "–"
