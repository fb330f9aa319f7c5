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
from hybridvq.app.reconstruct import decode_alone, encode
from hybridvq.devices import evaluating
from hybridvq.metrics import codes_used, perplexity
from hybridvq.report.figures import INK, plain_axes, to_svg

BLUE = "#0072B2"
SHARES = (0.05, 0.5, 0.95)  # of the photographs' float gains, that lie below the three that are shown
MOST = 4096  # codes shown
CODE_PX = 28  # how large each decoded code is shown
ACROSS = 32  # codes side by side in the picture that holds them all


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


def code_sheet(codebook: DecodedCodes) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """All codes that are shown as one picture (., ., 3) uint8, most used first, the gains of each side by side.

    Also the place of each, in codes from the left, counting each gain, and from the top.
    """
    cells = codebook.images[codebook.order[:MOST]]
    k, count, height, width, _ = cells.shape
    sheet = np.full((-(-k // ACROSS) * height, ACROSS * count * width, 3), 255, np.uint8)
    places = [(place % ACROSS, place // ACROSS) for place in range(k)]
    for (x, y), images in zip(places, cells, strict=True):
        sheet[y * height : (y + 1) * height, x * count * width : (x + 1) * count * width] = np.concatenate(images, 1)
    return sheet, [(x * count, y) for x, y in places]


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
    """The codes and their usage."""
    sheet, places = code_sheet(codebook)
    counts = torch.from_numpy(codebook.counts)
    total, shown = max(1, int(counts.sum())), codebook.order[: len(places)]
    gains = ", ".join(f"{gain:.2f}" for gain in codebook.gains)
    size = model.tokenizer.downsampling
    which = "All codes" if len(shown) == len(counts) else f"The {len(shown):,} most used codes"
    pointed = f", at the gains {gains} side by side" if len(codebook.gains) > 1 else ""
    texts = [f"code {code}: {100 * codebook.counts[code] / total:.2g}% of positions" for code in shown]
    return markup.block(
        markup.paragraph(
            f"{model.title} uses {codes_used(counts):,} of its {len(counts):,} codes on the sample photographs; "
            f"perplexity {perplexity(counts):,.0f}."
        ),
        markup.paragraph(
            f"{which}, the most used first. Each square is what one code alone decodes to, {size}x{size} pixels. "
            f"Point at one to see it large{pointed}."
        ),
        markup.tiles(sheet, places, texts, len(codebook.gains), CODE_PX),
        markup.drawing(usage_svg(codebook.counts), "How often each code is used"),
    )
