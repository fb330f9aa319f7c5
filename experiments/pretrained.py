"""Measure the bundled models, and write their cards and the page about them.

    python -m experiments.pretrained --photographs "kept photographs=FOLDER" "others=FOLDER" --data PATH_OR_HUB_ID

Measures every tokenizer through files of its codec on the photographs of each folder, and the prior on the tokens of
the held-out images of --data; without one of the two, what was measured of it stays. Writes result.json and README.md
to --out, the table of the page of all results, and a README.md, the card, into the folder of each model named in CARDS
and PRIORS. `--page` measures nothing and writes these anew.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.pages import write_page
from experiments.pretrained_page import templates as page_templates
from hybridvq import Codec, CodecSettings, Tokenizer, evaluate, load_prior, load_recipe, load_tokenizer, open_images
from hybridvq.comparison.plan import hardware
from hybridvq.data import EvalBatches, read_image
from hybridvq.documents import read_json, to_json
from hybridvq.metrics import psnr_db
from hybridvq.paths import image_files
from hybridvq.pixels import mse
from hybridvq.pretrained import HERE
from hybridvq.priors import Bits, bits_per_position, tokenizer_of_prior
from hybridvq.priors.saving import read_prior_config
from hybridvq.quantizers import Tokens
from hybridvq.saved import model_folder
from hybridvq.tokenizer import weight_hash
from hybridvq.writing import write_whole

ROOT = Path(__file__).parents[1]
CARDS = {"photos-gain-shape": "photos-vq", "photos-vq": "photos"}  # and what each began from; that of photos is by hand
QUALITIES = (10, 75)  # of photos
PRIORS = ("cifar10-prior",)
RESULT, SIZE, BATCH, HELD_OUT = "result.json", 32, 50, 2000
NEW_IMAGES = ROOT / "docs" / "results" / "new-images" / "result.json"


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    out = Path(arguments.out)
    if not arguments.page:
        result = measure_photographs(arguments.photographs) if arguments.photographs else read_json(out / RESULT)
        if arguments.data:
            held_out = open_images(arguments.data, "test", size=SIZE)
            result["priors"] = {name: measure_prior(name, held_out) for name in PRIORS}
        write_whole(out / RESULT, to_json(result))
    write_cards(read_json(out / RESULT))
    write_page(out, "pretrained")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--photographs", nargs="+", help="sets measured at full size, each TITLE=FOLDER")
    made.add_argument("--data", help="set whose held-out images the prior is measured on, at 32x32")
    made.add_argument("--out", default="docs/results/pretrained", help="folder of the result")
    made.add_argument("--page", action="store_true", help="measure nothing, write the pages of the result")
    return made


def measure_photographs(named: Sequence[str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    sets = {title: read_all(folder) for title, folder in (given.split("=", 1) for given in named)}
    rows = []
    for model, settings in wanted():
        print(f"{model}: measuring", flush=True)
        codec = Codec.load(model, "cpu")
        measured = {title: measure_files(codec, settings, photographs) for title, photographs in sets.items()}
        rows.append({"model": model, "quality": settings.quality, "photographs": measured})
    return {
        "hardware": hardware(),
        "photographs": {
            title: {"images": len(photographs), "megapixels": round(pixels_of(photographs) / 1e6, 2)}
            for title, photographs in sets.items()
        },
        "rows": rows,
        "tokenizers": {name: about(name) for name in CARDS},
    }


def wanted() -> Iterator[tuple[str, CodecSettings]]:
    """The models, each with the settings that it is measured at."""
    for quality in QUALITIES:
        yield "photos", CodecSettings(quality=quality)
    for name in CARDS:
        yield name, CodecSettings()


def read_all(folder: str) -> list[np.ndarray]:
    return [read_image(path) for path in image_files([folder])]


def pixels_of(photographs: Sequence[np.ndarray]) -> int:
    return sum(pixels.shape[0] * pixels.shape[1] for pixels in photographs)


def about(name: str) -> dict[str, Any]:
    folder = model_folder(name)
    return {
        "sha256": weight_hash(folder),
        "megabytes": round(sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6, 2),
        "parameters": sum(value.numel() for value in load_tokenizer(folder).parameters()),
        "config": read_json(folder / "config.json"),
    }


def measure_files(codec: Codec, settings: CodecSettings, photographs: Sequence[np.ndarray]) -> dict[str, float]:
    """Measure whole files with contextual tables: means over images of MSE and PSNR, and bits over all pixels together.

    And the bits with static tables, and before entropy coding, where tokens are of a fixed number.
    """
    quantizer, f = codec.tokenizer.quantizer, codec.tokenizer.downsampling
    errors: list[float] = []
    file_bytes = static_bytes = positions = 0
    for pixels in photographs:
        data = codec.compress(pixels, settings)
        errors.append(mse(np.array(codec.decompress(data).convert("RGB")), pixels))
        file_bytes += len(data)
        if not codec.is_hybrid:
            static_bytes += len(codec.compress(pixels, CodecSettings(mode="static")))
        positions += -(-pixels.shape[0] // f) * -(-pixels.shape[1] // f)
    found = {
        "mse": float(np.mean(errors)),
        "psnr_db": float(np.mean([psnr_db(error) for error in errors])),
        "rate_bpp": 8 * file_bytes / pixels_of(photographs),
    }
    if not codec.is_hybrid:
        raw = quantizer.stages * np.log2((quantizer.codebook_size or 1) * (quantizer.levels or 1))
        found["static_rate_bpp"] = 8 * static_bytes / pixels_of(photographs)
        found["raw_rate_bpp"] = float(raw * positions / pixels_of(photographs))
    return found


def measure_prior(name: str, held_out: Any) -> dict[str, Any]:
    print(f"{name}: measuring", flush=True)
    folder, batches = model_folder(name), EvalBatches(held_out, BATCH, HELD_OUT)
    tokenizer = load_tokenizer(tokenizer_of_prior(name))
    prior, begun = load_prior(name, tokenizer_of_prior(name)), read_prior_config(folder)
    bits: Bits = bits_per_position(prior, token_batches(tokenizer, batches, held_out.class_ids))
    single = evaluate(tokenizer, batches)
    return {
        "megabytes": round(sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6, 2),
        "parameters": sum(value.numel() for value in prior.parameters()),
        "codebook_size": begun.space["codebook_size"],
        "bits_per_position": bits.total,
        "entropy_bits": single["entropy_rate_bpp"] * tokenizer.downsampling**2,
        "raw_bits": single["bits_per_position"],
        "held_out": {"images": batches.total, "size": SIZE, "fingerprint": held_out.fingerprint},
    }


@torch.inference_mode()
def token_batches(
    tokenizer: Tokenizer, held_out: EvalBatches, class_ids: np.ndarray
) -> Iterator[tuple[Tokens, Tensor | None]]:
    for number in range(len(held_out)):
        labels = torch.from_numpy(class_ids[number * BATCH : (number + 1) * BATCH])
        yield tokenizer.encode(held_out[number]), labels


def best_guidance(name: str) -> float:
    """The guidance with the lowest Fréchet distance, as `experiments.new_images` found it."""
    return float(read_json(NEW_IMAGES)["priors"][name]["best"])


def write_cards(result: dict[str, Any]) -> None:
    """A card for each model of CARDS and PRIORS."""
    templates = page_templates()
    rows = {row["model"]: row["photographs"] for row in result["rows"]}
    for name, model in result["tokenizers"].items():
        card = templates.get_template("tokenizer_card.md.j2").render(
            name=name, start=CARDS[name], model=model, photographs=rows[name], recipe=load_recipe(name)
        )
        write_whole(HERE / name / "README.md", card.encode())
    for name, prior in result["priors"].items():
        guidance = best_guidance(name)
        card = templates.get_template("prior_card.md.j2").render(name=name, prior=prior, guidance=guidance)
        write_whole(HERE / name / "README.md", card.encode())


if __name__ == "__main__":
    main()
