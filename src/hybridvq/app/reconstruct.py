"""The tab Reconstruct: a picture through two tokenizers and back, what is lost, and what the codes alone say.

pixels ──pad──► x ──encoder──► z ──quantizer──► tokens ──dequantize──► s z_hat ──decoder──► x_hat ──► Shown
                                                                       ▲
                                                     gain_scale s, of models with gains
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridvq.app import markup
from hybridvq.app.models import Model
from hybridvq.app.picture import Picture
from hybridvq.codec import CONTEXTUAL, TokenCoder
from hybridvq.devices import evaluating
from hybridvq.evaluation import bits_of
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse, to_input, to_pixels
from hybridvq.quantizers import Tokens
from hybridvq.report.pictures import absolute_error, colored
from hybridvq.tiles import reflect
from hybridvq.tokenizer import Tokenizer

BATCH = 1024  # codes decoded together
READING = "PSNR: higher is better. In a file: after entropy coding, without the header of about forty bytes."


@dataclass(frozen=True)
class Shown:
    """What a tokenizer makes of a picture.

    Attributes:
        pixels: (H, W, 3) uint8.
        codes: (h, w) int64, of the first stage or group.
        alone: (H, W, 3) uint8, what the codes alone say: each position decoded by itself, at one gain for all; of a
            hybrid model, the picture without its details.
        gains: (h, w) float32, of the first stage, as they were decoded; None without.
        mse: on [-1, 1], of pixels.
        raw_bpp: bits per pixel before entropy coding; None of a hybrid model, which has none.
        codec_bpp: bits per pixel that the codec's tables, or a hybrid model itself, give these tokens; None without.
    """

    pixels: np.ndarray
    codes: np.ndarray
    alone: np.ndarray
    gains: np.ndarray | None
    mse: float
    raw_bpp: float | None
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
        quantized = tokenizer.quantizer(z)
        tokens = quantized.tokens
        x_hat = tokenizer.decode(tokens) if model.is_hybrid else decode_scaled(tokenizer, tokens, gain_scale)
    height, width = picture.size
    pixels = to_pixels(x_hat)[0, :height, :width].numpy()
    assert tokens.codes is not None
    bits = bits_of(tokenizer, quantized, tokens.codes[0, 0].numel()) / (height * width)
    coded = codec_bits(model, tokens) / (height * width) if model.codec and not model.is_hybrid else None
    return Shown(
        pixels=pixels,
        codes=tokens.codes[0, 0].cpu().numpy(),
        alone=decode_codes(model, tokens)[:height, :width],
        gains=first_gains(model, tokens, gain_scale),
        mse=mse(picture.pixels, pixels),
        raw_bpp=None if model.is_hybrid else bits,
        codec_bpp=bits if model.is_hybrid else coded,
    )


def decode_codes(model: Model, tokens: Tokens) -> np.ndarray:
    """What the codes of one picture say alone, (., ., 3) uint8; see `Shown`."""
    assert tokens.codes is not None
    if model.is_hybrid:
        with evaluating(model.tokenizer):
            return to_pixels(model.tokenizer.decode(Tokens(codes=tokens.codes)))[0].numpy()
    codes, places = tokens.codes[0, 0].unique(return_inverse=True)
    gain = None if tokens.gains is None else float(tokens.gains[0, 0].median())
    patches = decode_alone(model, gain, codes)[places.cpu().numpy()]  # (h, w, f, f, 3)
    rows = [np.concatenate(list(row), 1) for row in patches]
    return np.concatenate(rows)


@torch.inference_mode()
def decode_alone(model: Model, gain: float | None, codes: Tensor | None = None) -> np.ndarray:
    """Codes (K,), all if not given, on a grid of one position each, (K, f, f, 3) uint8, at the gain (or level) sent."""
    images = []
    with evaluating(model.tokenizer) as device:
        codes = torch.arange(model.space.codebook_size) if codes is None else codes
        for part in codes.to(device).split(BATCH):
            part = part[:, None, None, None]
            kind = torch.long if model.space.levels else torch.float32
            gains = None if gain is None else torch.full(part.shape, gain, dtype=kind, device=device)
            images.append(to_pixels(model.tokenizer.decode(Tokens(part, gains))))
    return torch.cat(images).numpy()


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


def gain_map(gains: np.ndarray) -> np.ndarray:
    """Gains (h, w) from dark, the lowest, to bright, the highest, (h, w, 3) uint8."""
    low, high = float(gains.min()), float(gains.max())
    return colored((gains.astype(float) - low) / ((high - low) or 1.0))


def render(picture: Picture, models: tuple[Model, Model], shown: tuple[Shown, Shown]) -> str:
    """The original and the second model's picture over each other, the table, and below what the two differ in."""
    errors = [absolute_error(picture.pixels, s.pixels) for s in shown]
    scale = max(8.0, *(float(np.percentile(error, 99.5)) for error in errors))
    other, own = zip(models, shown, errors, strict=True)
    side_by_side = markup.slider(
        picture.pixels, own[1].pixels, ("Original", own[0].title), f"{own[0].title}: {psnr_db(own[1].mse):.2f} dB"
    )
    parts = [markup.figure(other[1].pixels, other[0].title, f"{psnr_db(other[1].mse):.2f} dB")]
    parts += [part for model, s, error in (other, own) for part in details(model, s, error / scale, scale)]
    return markup.block(
        markup.note(picture.note),
        markup.wide(side_by_side, numbers(models, shown) + markup.note(READING)),
        markup.row(parts, 3),
    )


def details(model: Model, shown: Shown, error: np.ndarray, scale: float) -> list[str]:
    """Where a model errs, what its codes say alone, and its gains, if any. The error is a share of `scale` grays."""
    used = f"{len(np.unique(shown.codes)):,} different codes"
    each = "each position" if model.space.stages == 1 else "the first code of each position"
    says = "without the details" if model.is_hybrid else f"{each} by itself; {used}"
    parts = [
        markup.figure(colored(error), f"{model.title}: error", f"black 0 to yellow {scale:.0f} of 255 gray levels"),
        markup.figure(shown.alone, f"{model.title}: codes alone", says),
    ]
    if shown.gains is not None:
        low, high = shown.gains.min(), shown.gains.max()
        text = f"{low:.2f}, black, to {high:.2f}, yellow"
        parts.append(markup.figure(gain_map(shown.gains), f"{model.title}: gains", text))
    return parts


def numbers(models: tuple[Model, Model], shown: tuple[Shown, Shown]) -> str:
    """The table: error and bits of both."""
    lines = [
        ("PSNR", [f"{psnr_db(s.mse):.2f} dB" for s in shown]),
        ("Bits per pixel in a file", [bits_text(s.codec_bpp) for s in shown]),
        ("Bits per pixel, raw", [bits_text(s.raw_bpp) for s in shown]),
        ("MSE on [-1, 1]", [f"{s.mse:.5f}" for s in shown]),
        ("Codes", [code_kind(m) for m in models]),
        ("Gain levels", [gain_kind(m) for m in models]),
    ]
    return markup.table(["", *(model.title for model in models)], [[name, *values] for name, values in lines])


def bits_text(bits: float | None) -> str:
    return "–" if bits is None else f"{bits:.3f}"


def code_kind(model: Model) -> str:
    """How many codes there are, and of how many each position takes one."""
    times = f"{model.space.stages} of " if model.space.stages > 1 else ""
    return f"{times}{model.space.codebook_size:,}"


def gain_kind(model: Model) -> str:
    if model.space.levels:
        return f"{model.space.levels}"
    return "float" if model.space.gain == "float" else "–"
