"""The tab Codebook: every code decoded alone, and how often each is used on the sample photographs."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from hybridvq.app import markup
from hybridvq.app.models import Model
from hybridvq.app.picture import SAMPLES, sample_picture
from hybridvq.app.reconstruct import encode
from hybridvq.devices import evaluating
from hybridvq.metrics import codes_used, perplexity
from hybridvq.pixels import to_pixels
from hybridvq.quantizers import Tokens
from hybridvq.report.figures import INK, plain_axes, to_svg

BLUE = "#0072B2"
GAP = 1  # pixels between codes
BATCH = 1024  # positions decoded together
SHARES = (0.05, 0.5, 0.95)  # of the photographs' float gains, that lie below the three that are shown
WIDTH_PX = 1216  # of the grid as it is shown, at most
CODE_PX = 16  # about how large each decoded code is shown


@dataclass(frozen=True)
class DecodedCodes:
    """What the tab shows.

    Attributes:
        order: (K,) the codes, most used first.
        counts: (K,) how often each was used, in the order of their numbers, over all stages.
        gains: the gains each is decoded at, ascending; 1 without gains.
        images: (K, G, f, f, 3) uint8, each code decoded alone, at each of the G gains, in the order of their numbers.
    """

    order: np.ndarray
    counts: np.ndarray
    gains: tuple[float, ...]
    images: np.ndarray


def read_codebook(model: Model) -> DecodedCodes:
    """Decode every code, and count them on the sample photographs."""
    counts, gains = usage(model)
    levels = levels_to_show(model, gains)
    sent = levels or (1.0,)
    images = np.stack([decode_alone(model, gain if levels else None) for gain in sent], 1)
    values = model.space.level_values
    named = tuple(float(g) if values is None else float(values[0, int(g)]) for g in sent)
    return DecodedCodes(np.argsort(-counts, kind="stable"), counts, named, images)


@torch.inference_mode()
def usage(model: Model) -> tuple[np.ndarray, Tensor]:
    """How often each code is used on the sample photographs, (K,) int64, and the gains met there, (M,)."""
    counts, gains = torch.zeros(model.space.codebook_size, dtype=torch.long), []
    for name in SAMPLES:
        z = encode(model, sample_picture(name))
        with evaluating(model.tokenizer):
            tokens = model.tokenizer.quantizer(z).tokens
        assert tokens.codes is not None
        counts += torch.bincount(tokens.codes.flatten().cpu(), minlength=len(counts))
        if tokens.gains is not None:
            gains.append(tokens.gains[:, 0].flatten().cpu())
    return counts.numpy(), torch.cat(gains) if gains else torch.empty(0)


def levels_to_show(model: Model, gains: Tensor) -> tuple[float, ...]:
    """What is sent for a low, a middling and a high gain: levels, or floats of photographs; nothing without gains."""
    if model.space.levels:
        last = model.space.levels - 1
        return tuple(sorted({0, last // 2, last}))
    ordered = gains.sort().values
    return tuple(float(ordered[int(share * (len(ordered) - 1))]) for share in SHARES) if len(ordered) else ()


@torch.inference_mode()
def decode_alone(model: Model, gain: float | None) -> np.ndarray:
    """Every code on a grid of one position, (K, f, f, 3) uint8, at the gain (or level) sent with it."""
    images = []
    with evaluating(model.tokenizer) as device:
        for codes in torch.arange(model.space.codebook_size, device=device).split(BATCH):
            codes = codes[:, None, None, None]
            kind = torch.long if model.space.levels else torch.float32
            gains = None if gain is None else torch.full(codes.shape, gain, dtype=kind, device=device)
            images.append(to_pixels(model.tokenizer.decode(Tokens(codes, gains))))
    return torch.cat(images).numpy()


def codebook_grid(codebook: DecodedCodes) -> tuple[np.ndarray, int]:
    """All codes as one picture (., ., 3) uint8 on white, and how many times as large it is to be shown.

    Most used first, the gains of each side by side, as many in a row as fit.
    """
    cells = codebook.images[codebook.order]
    k, count, height, width, _ = cells.shape
    step_y, step_x, zoom = height + GAP, count * width + 2 * GAP, max(1, CODE_PX // width)
    columns = min(k, max(1, WIDTH_PX // (zoom * step_x)))
    canvas = np.full((-(-k // columns) * step_y, columns * step_x, 3), 255, np.uint8)
    for place, images in enumerate(cells):
        top, left = place // columns * step_y, place % columns * step_x
        canvas[top : top + height, left : left + count * width] = np.concatenate(images, 1)
    return canvas, zoom


def usage_svg(counts: np.ndarray) -> bytes:
    """The share of positions that take the code of each rank."""
    figure = Figure(figsize=(11, 3), layout="constrained")
    ax = figure.subplots()
    shares = np.sort(counts[counts > 0])[::-1] / max(1, counts.sum())
    ax.plot(np.arange(1, len(shares) + 1), 100 * shares, color=BLUE, drawstyle="steps-mid")
    plain_axes(ax, "How often each code is used on the sample photographs")
    ax.set_xlabel("Rank of the code, most used first", color=INK)
    ax.set_ylabel("% of positions (log scale)", color=INK)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}%"))
    ax.set_xlim(1, len(counts) + 1)
    return to_svg(figure)


def render(model: Model, codebook: DecodedCodes) -> str:
    """The grid and the usage."""
    grid, zoom = codebook_grid(codebook)
    counts = torch.from_numpy(codebook.counts)
    gains = ", ".join(f"{gain:.2f}" for gain in codebook.gains)
    each = f"Each code at the gains {gains}, side by side" if model.space.gain != "none" else "Each code once"
    size = model.tokenizer.downsampling
    return markup.block(
        markup.paragraph(
            f"{model.title} uses {codes_used(counts):,} of its {len(counts):,} codes on the sample photographs; "
            f"perplexity {perplexity(counts):,.0f}."
        ),
        markup.figure(
            grid,
            f"{len(counts):,} codes, most used first.",
            f"{each}, decoded alone: {size}x{size} pixels, enlarged.",
            width=zoom * grid.shape[1],
        ),
        markup.drawing(usage_svg(codebook.counts), "How often each code is used"),
    )
