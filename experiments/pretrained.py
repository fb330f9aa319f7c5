"""Measure the bundled models, and write their cards and the page about them.

    python -m experiments.pretrained --data PATH_OR_HUB_ID --photographs FOLDER --beside runs/vector-published

Measures every tokenizer at 64x64 on the held-out images of --data, and at full size on the photographs of a folder,
through files of its codec; then those of --beside, runs with tables that are not bundled; then the prior, on the
tokens of the held-out images. Writes result.json and README.md to --out, the table of the project's README, and a
README.md, the card, into each model's folder. `--page` measures nothing and writes these anew.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from experiments.overlap import seen
from experiments.photos import squared_error
from experiments.publish import fill
from hybridvq import Codec, CodecSettings, Tokenizer, evaluate, load_prior, load_recipe, load_tokenizer, open_images
from hybridvq.comparison.plan import hardware
from hybridvq.data import EvalBatches, read_image
from hybridvq.documents import read_json, to_json
from hybridvq.files import image_files
from hybridvq.metrics import psnr_db
from hybridvq.pretrained import HERE
from hybridvq.priors import Bits, bits_per_position, tokenizer_of_prior
from hybridvq.quantizers import Tokens
from hybridvq.tokenizer import model_folder, weight_hash
from hybridvq.writing import write_whole

ROOT = Path(__file__).parents[1]
TOKENIZERS = ("photos-f4", "photos-f8", "photos-f4-vq")
PRIORS = ("photos-f8-prior",)
RESULT, SIZE, BATCH = "result.json", 64, 50
KEPT = ("test_mse", "test_psnr_db", "test_ssim", "bits_per_position", "rate_bpp", "entropy_rate_bpp", "codes_used")


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    out = Path(arguments.out)
    if not arguments.page:
        result = measure_all(arguments)
        write_whole(out / RESULT, to_json(result))
    write_pages(read_json(out / RESULT), out)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", help="set whose held-out images are measured at 64x64")
    made.add_argument("--photographs", help="folder of the photographs measured at full size")
    made.add_argument("--beside", nargs="*", default=[], help="more runs with tables")
    made.add_argument("--out", default="docs/results/pretrained", help="folder of the result")
    made.add_argument("--page", action="store_true", help="measure nothing, write the pages of the result")
    return made


def measure_all(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    held_out = open_images(arguments.data, "test", size=SIZE)
    photographs = {path.name: read_image(path) for path in image_files([arguments.photographs])}
    thumbnails = seen(image_files([arguments.photographs]), open_images(arguments.data, "train", size=SIZE))
    pixels = sum(photograph.shape[0] * photograph.shape[1] for photograph in photographs.values())
    result: dict[str, Any] = {
        "hardware": hardware(),
        "held_out": {"images": len(held_out), "size": SIZE, "fingerprint": held_out.fingerprint},
        "photographs": {"images": len(photographs), "megapixels": round(pixels / 1e6, 2), "seen": sorted(thumbnails)},
        "tokenizers": {},
        "priors": {},
    }
    for model in [*TOKENIZERS, *arguments.beside]:
        print(f"{model}: measuring", flush=True)
        measured = measure_tokenizer(model, EvalBatches(held_out, BATCH), photographs, thumbnails)
        result["tokenizers"][Path(model).name] = measured
    for name in PRIORS:
        print(f"{name}: measuring", flush=True)
        result["priors"][name] = measure_prior(name, EvalBatches(held_out, BATCH))
    return result


def measure_tokenizer(
    model: str, held_out: EvalBatches, photographs: dict[str, np.ndarray], thumbnails: set[str]
) -> dict[str, Any]:
    folder = model_folder(model)
    tokenizer = load_tokenizer(folder)
    about = {
        "sha256": weight_hash(folder),
        "megabytes": round((folder / "model.safetensors").stat().st_size / 1e6, 2),
        "parameters": sum(value.numel() for value in tokenizer.parameters()),
        "config": read_json(folder / "config.json"),
    }
    measured = evaluate(tokenizer, held_out)
    return about | {
        "held_out": {key: measured[key] for key in KEPT},
        "photographs": measure_photographs(Codec.load(folder, "cpu"), photographs, thumbnails),
    }


def measure_photographs(codec: Codec, photographs: dict[str, np.ndarray], thumbnails: set[str]) -> dict[str, float]:
    """Of whole files with contextual tables: means over images of MSE and PSNR, and bits over all pixels together.

    And the MSE without those whose `thumbnails` are known from training.
    """
    quantizer, f = codec.tokenizer.quantizer, codec.tokenizer.downsampling
    errors: dict[str, float] = {}
    file_bytes = static_bytes = positions = pixel_count = 0
    for name, pixels in photographs.items():
        data = codec.compress(pixels)
        errors[name] = squared_error(np.array(codec.decompress(data).convert("RGB")), pixels)
        file_bytes += len(data)
        static_bytes += len(codec.compress(pixels, CodecSettings(mode="static")))
        height, width = pixels.shape[:2]
        positions += -(-height // f) * -(-width // f)
        pixel_count += height * width
    raw = quantizer.stages * np.log2((quantizer.codebook_size or 1) * (quantizer.levels or 1))
    return {
        "mse": float(np.mean(list(errors.values()))),
        "unseen_mse": float(np.mean([error for name, error in errors.items() if name not in thumbnails])),
        "psnr_db": float(np.mean([psnr_db(error) for error in errors.values()])),
        "raw_rate_bpp": float(raw * positions / pixel_count),
        "rate_bpp": 8 * file_bytes / pixel_count,
        "static_rate_bpp": 8 * static_bytes / pixel_count,
    }


def measure_prior(name: str, held_out: EvalBatches) -> dict[str, Any]:
    folder = model_folder(name)
    tokenizer = load_tokenizer(tokenizer_of_prior(name))
    prior = load_prior(name, tokenizer_of_prior(name))
    bits: Bits = bits_per_position(prior, token_batches(tokenizer, held_out))
    return {
        "megabytes": round((folder / "model.safetensors").stat().st_size / 1e6, 2),
        "parameters": sum(value.numel() for value in prior.parameters()),
        "config": read_json(folder / "config.json"),
        "bits_per_position": {"code": bits.code, "gain": bits.gain, "total": bits.total},
    }


@torch.inference_mode()
def token_batches(tokenizer: Tokenizer, held_out: EvalBatches) -> Iterator[tuple[Tokens, Tensor | None]]:
    for number in range(len(held_out)):
        yield tokenizer.encode(held_out[number]), None


def write_pages(result: dict[str, Any], out: Path) -> None:
    """The page, the table of the project's README, and a card for each bundled model."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = templates.get_template("pretrained.md.j2").render(result=result, table=table(result), names=TOKENIZERS)
    write_whole(out / "README.md", page.encode())
    fill(ROOT / "README.md", "pretrained", table(result))
    for name in TOKENIZERS:
        recipe = load_recipe(name)
        card = templates.get_template("tokenizer_card.md.j2").render(
            name=name, model=result["tokenizers"][name], result=result, recipe=recipe
        )
        write_whole(HERE / name / "README.md", card.encode())
    for name in PRIORS:
        card = templates.get_template("prior_card.md.j2").render(name=name, prior=result["priors"][name], result=result)
        write_whole(HERE / name / "README.md", card.encode())


def table(result: dict[str, Any]) -> str:
    """Every tokenizer beside the published recipe trained for as many steps."""
    lines = [
        "| model | bits per pixel: raw | files, static tables | contextual | MSE | PSNR | MSE at 64x64 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, model in result["tokenizers"].items():
        of, held_out = model["photographs"], model["held_out"]
        lines.append(
            f"| `{name}` | {of['raw_rate_bpp']:.2f} | {of['static_rate_bpp']:.3f} | {of['rate_bpp']:.3f} "
            f"| {of['mse']:.4f} | {of['psnr_db']:.2f} dB | {held_out['test_mse']:.4f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
