"""Bits per pixel and PSNR of each photograph, for each row and seed, at each rung of its ladder."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.latents.context import load_context
from experiments.latents.plan import CODED, CONTEXT, Row, run_folder
from experiments.ours import WEIGHTS, ours
from experiments.photos import PhotoCodec, fingerprint, jpeg
from hybridvq import Tokenizer, load_tokenizer
from hybridvq.devices import evaluating, find_device
from hybridvq.documents import read_json, to_json
from hybridvq.errors import ModelError
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse, to_input, to_pixels
from hybridvq.quantizers import Quantized
from hybridvq.tiles import reflect
from hybridvq.tokenizer import weight_hash
from hybridvq.writing import write_whole

STEPS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.7)  # of coefficients, within what training draws
JPEG_QUALITIES = (1, 3, 5, 8, 12, 20, 30, 45, 60, 75, 85, 92, 96)
ABOUT, ANCHOR = "about.json", "jpeg-420.json"
FILES, IDEAL = "files", "ideal code lengths"

Rung = tuple[str, list[float], list[float]]
"""A setting, and bits and decibels of each photograph."""


def measure_all(
    rows: Sequence[Row], seeds: Sequence[int], photographs: list[np.ndarray], name: str, out: Path, device: str = "auto"
) -> None:
    """Measure what is not yet measured; writes a file for each row and seed into a folder for these photographs."""
    folder, place = out / "measured" / fingerprint(photographs), find_device(device)
    about = {"name": name, "fingerprint": folder.name, "pixels": [p.shape[0] * p.shape[1] for p in photographs]}
    write_whole(folder / ABOUT, to_json(about))
    if not (folder / ANCHOR).exists():
        write_whole(folder / ANCHOR, to_json({"points": points(of_files(anchor(), photographs))}))
    for row in rows:
        for seed in seeds:
            run, path = run_folder(out, row.network, seed), folder / f"{row.name}-{seed}.json"
            if not (run / "model").is_dir():
                raise ModelError(f"{run} holds no model; train it first with --data, or leave its row or seed out")
            weights = weight_hash(run / "model")
            if path.exists() and read_json(path)["weights"] == weights:
                continue
            print(f"{row.title}, seed {seed}, {name}", flush=True)
            if row.counts_bits:
                counted, rungs = IDEAL, of_steps(run, row.context, photographs, place)
            else:
                counted, rungs = FILES, of_files(settings_of(run / CODED, device), photographs)
            described = {"row": row.name, "seed": seed, "weights": weights, "counted": counted}
            write_whole(path, to_json(described | {"points": points(rungs)}))


def points(rungs: Iterator[Rung]) -> list[dict[str, Any]]:
    return [{"setting": setting, "bits": bits, "psnr_db": psnr} for setting, bits, psnr in rungs]


def anchor() -> Iterator[tuple[str, PhotoCodec]]:
    return ((f"quality {quality}", jpeg(quality, "4:2:0")) for quality in JPEG_QUALITIES)


def settings_of(model: Path, device: str) -> Iterator[tuple[str, PhotoCodec]]:
    """The codec of a model at each lambda."""
    curve = ours(str(model), device)
    names = (f"lambda {weight:g} of the mean square" for weight in WEIGHTS)
    return ((name, curve.at(quality)) for name, quality in zip(names, curve.qualities, strict=True))


def of_files(codecs: Iterator[tuple[str, PhotoCodec]], photographs: Sequence[np.ndarray]) -> Iterator[Rung]:
    """Whole files, headers and all."""
    for setting, codec in codecs:
        files = [codec.encode(pixels) for pixels in photographs]
        decoded = [codec.decode(data) for data in files]
        errors = [mse(a, b) for a, b in zip(decoded, photographs, strict=True)]
        yield setting, [8.0 * len(data) for data in files], [*map(psnr_db, errors)]


@torch.no_grad()
def of_steps(run: Path, context: bool, photographs: Sequence[np.ndarray], device: torch.device) -> Iterator[Rung]:
    """The bits that an ideal coder takes, at each step."""
    tokenizer = load_tokenizer(run, device=device)
    count: Callable[[Quantized], torch.Tensor] = lambda quantized: quantized.rate.bits  # noqa: E731
    if context:
        neighbors = load_context(run / CONTEXT, device)
        count = lambda quantized: neighbors.bits(quantized, tokenizer.quantizer)  # noqa: E731
    with evaluating(tokenizer):
        latents = [tokenizer.encoder(extended(pixels, tokenizer)) for pixels in photographs]
        for step in STEPS:
            bits, psnr = [], []
            for z, pixels in zip(latents, photographs, strict=True):
                quantized = tokenizer.quantizer(z, step)
                shown = to_pixels(tokenizer.decoder(quantized.z_hat))[0].numpy()[: pixels.shape[0], : pixels.shape[1]]
                bits.append(float(count(quantized)))
                psnr.append(psnr_db(mse(shown, pixels)))
            yield f"step {step:g}", bits, psnr


def extended(pixels: np.ndarray, tokenizer: Tokenizer) -> torch.Tensor:
    """(1, 3, H, W) on the model's device, with sides extended by reflection to the grid."""
    rows, columns = (reflect(side, tokenizer.downsampling) for side in pixels.shape[:2])
    return to_input(pixels[np.ix_(rows, columns)], next(tokenizer.parameters()).device)[None]


def read_measured(out: Path) -> list[dict[str, Any]]:
    """What is measured in all, for each set of photographs: `about`, and the points of JPEG and of each row and seed.

    Bits and decibels of photographs become one number each: all bits over all pixels, and the mean.
    """
    found = []
    for folder in sorted((out / "measured").iterdir(), key=lambda folder: str(read_json(folder / ABOUT)["name"])):
        about = dict(read_json(folder / ABOUT))
        pixels = sum(about.pop("pixels"))
        about |= {"megapixels": round(pixels / 1e6, 2)}
        jpeg_points = read_json(folder / ANCHOR)["points"]
        about["images"] = len(jpeg_points[0]["bits"])
        runs = [dict(read_json(path)) for path in sorted(folder.glob("*-*.json")) if path.name != ANCHOR]
        for run in runs:
            run["points"] = together(run["points"], pixels)
        found.append({"photographs": about, "jpeg": together(jpeg_points, pixels), "runs": runs})
    return found


def together(measured: list[dict[str, Any]], pixels: int) -> list[dict[str, Any]]:
    return [
        {
            "setting": point["setting"],
            "rate_bpp": sum(point["bits"]) / pixels,
            "psnr_db": sum(point["psnr_db"]) / len(point["psnr_db"]),
        }
        for point in measured
    ]
