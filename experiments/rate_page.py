"""The page of `experiments.rate_curves`: tables, a figure, and how it was made. Nothing on it is typed by hand."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.bjontegaard import LEAST_OVERLAP, Curve, bd_rate
from experiments.photos import RIVALS, SMALLEST_SIDE, judged
from hybridvq.report.figures import empty_figure, to_svg
from hybridvq.report.rate import rate_axes
from hybridvq.report.result import RecipeRuns
from hybridvq.report.style import MISSING, Look, looks

ANCHOR = "jpeg-420"
RATES_BPP = (0.25, 1.0)


def page(result: dict[str, Any]) -> str:
    """The text of README.md."""
    curves = result["curves"]
    photographs, name = result["photographs"], result["photographs"]["name"]
    parts = [
        "# Bits against quality: photographs",
        f"{name[:1].upper()}{name[1:]}: the {photographs['images']} of them whose sides are at least {SMALLEST_SIDE} "
        f"pixels, {photographs['megapixels']:.1f} megapixels. The [glossary](../../glossary.md) has the words.",
        "![PSNR and MS-SSIM over bits per pixel](rate.svg)",
        delta_table(curves),
        points_table(curves, len(judged(photographs["images"]))),
        how_it_was_made(result),
    ]
    return "\n\n".join(parts) + "\n"


def figures(result: dict[str, Any]) -> dict[str, bytes]:
    return {"rate": to_svg(rate_figure(result["curves"]))}


def curve_over(curve: dict[str, Any], quality: str) -> Curve:
    """(bits per pixel, quality) of each point."""
    measure = decibels if quality == "ms_ssim" else float
    return [(point["rate_bpp"], measure(point[quality])) for point in curve["points"]]


def decibels(similarity: float) -> float:
    """MS-SSIM on a scale that spreads its upper end, where images that differ visibly lie: -10 log10(1 - value)."""
    return -10 * math.log10(1 - similarity)


def delta_table(curves: list[dict[str, Any]]) -> str:
    """Each curve's BD-rate against JPEG, over all it shares with it and within RATES_BPP."""
    anchor = next((curve for curve in curves if curve["codec"] == ANCHOR), None)
    if anchor is None:
        return ""
    low, high = RATES_BPP
    lines = [
        f"## Bits for the same quality, against {anchor['title']}",
        "",
        "Bjøntegaard's delta rate: the mean difference in file bytes, below 0 fewer. Over all qualities that both "
        f"reach, where these span {LEAST_OVERLAP:g} dB, and over those that both reach at {low} to {high:g} bits per "
        "pixel. MS-SSIM as -10 log10(1 - MS-SSIM). Megapixels per second of one core: the mean over the points of a "
        "curve, of files in memory. Model: what a reader needs once beside the files, weights and tables.",
        "",
        f"| codec | PSNR | PSNR, {low} to {high:g} bpp | MS-SSIM | MS-SSIM, {low} to {high:g} bpp "
        "| encodes, megapixels/s | decodes | model, MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for curve in curves:
        cells = []
        for quality in ("psnr_db", "ms_ssim"):
            a, b = curve_over(anchor, quality), curve_over(curve, quality)
            cells += [percent(bd_rate(a, b)), percent(bd_rate(a, b, RATES_BPP))]
        for key in ("encode_megapixels_per_second", "decode_megapixels_per_second"):
            cells.append(f"{harmonic_mean([point[key] for point in curve['points']]):.3g}")
        cells.append(f"{curve['model_bytes'] / 1e6:.1f}" if "model_bytes" in curve else MISSING)
        lines.append(f"| {curve['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short_table(result: dict[str, Any]) -> str:
    """Table for other pages: delta rates over all qualities that are shared, and the bits per pixel of each curve."""
    curves = result["curves"]
    anchor = next((curve for curve in curves if curve["codec"] == ANCHOR), None)
    lines = [
        "| codec | bytes against JPEG's, at equal PSNR | at equal MS-SSIM | measured, bits per pixel |",
        "|---|--:|--:|--:|",
    ]
    for curve in curves if anchor else ():
        deltas = (bd_rate(curve_over(anchor or curve, q), curve_over(curve, q)) for q in ("psnr_db", "ms_ssim"))
        rates = sorted(point["rate_bpp"] for point in curve["points"])
        cells = [*map(percent, deltas), f"{rates[0]:.2f} to {rates[-1]:.2f}"]
        lines.append(f"| {curve['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.1f}%"


def harmonic_mean(speeds: list[float]) -> float:
    return len(speeds) / sum(1 / speed for speed in speeds)


def points_table(curves: list[dict[str, Any]], similarity_images: int) -> str:
    lines = [
        "## Every point",
        "",
        "Bits per pixel: all bytes of the files over all pixels, and without their headers (of JPEG every marker "
        "segment, tables included; of WebP 30 bytes; of AVIF all outside `mdat`; of JPEG XL nothing, whose codestream "
        "has a few bytes of them). PSNR: the mean over images, and that of the mean squared error. MS-SSIM: of RGB, "
        f"the mean over {similarity_images} images, evenly spread. Lambda 0: tokens chosen as the model was trained "
        "to, which weighs bits already where its recipe has a rate weight.",
        "",
        "| codec | quality | bits per pixel | without headers | PSNR, dB | of the mean MSE | MS-SSIM |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for curve in curves:
        for point in curve["points"]:
            lines.append(
                f"| {curve['title']} | {point['quality']} | {point['rate_bpp']:.3f} | {point['payload_rate_bpp']:.3f} "
                f"| {point['psnr_db']:.2f} | {point['psnr_of_mean_mse_db']:.2f} | {point['ms_ssim']:.4f} |"
            )
    return "\n".join(lines)


def how_it_was_made(result: dict[str, Any]) -> str:
    made = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    rivals = {rival.name for rival in RIVALS}
    models = " ".join(curve["codec"] for curve in result["curves"] if curve["codec"] not in rivals)
    return "\n".join(
        [
            "## How it was made",
            "",
            f'    python -m experiments.rate_curves FOLDER --name "{result["photographs"]["name"]}"'
            + (f" --models {models}" if models else ""),
            "",
            "JPEG with optimized Huffman tables; WebP at method 6; AVIF at speed 6, 4:2:0, as Pillow does if nothing "
            "is said; JPEG XL at effort 7. One thread each. "
            f"{result['hardware']['name']}; {made}. Fingerprint of the pixels: {result['photographs']['fingerprint']}.",
        ]
    )


def rate_figure(curves: list[dict[str, Any]]) -> Figure:
    """PSNR (left) and MS-SSIM in decibels (right) over bits per pixel of whole files."""
    recipes = [RecipeRuns(curve["codec"], curve["title"], "", "", ()) for curve in curves]
    style = looks(recipes)
    figure = empty_figure(4.8, recipes, style)
    left, right = figure.subplots(1, 2)
    for ax, quality, title in ((left, "psnr_db", "PSNR, dB"), (right, "ms_ssim", "MS-SSIM, -10 log10(1 - value), dB")):
        for curve in curves:
            draw(ax, curve_over(curve, quality), style[curve["codec"]])
        rate_axes(ax, title)
    return figure


def draw(ax: Axes, points: Curve, look: Look) -> None:
    style: dict[str, Any] = {"color": look.color, "linestyle": look.line, "marker": look.marker}
    ax.plot(*zip(*points, strict=True), markersize=4, linewidth=1.4, **style)
