"""What the priors of a set of images make, beside what is nearest in the training set; and what a gain does.

    python -m experiments.prior_pictures runs/priors/SET/TOKENIZER --data PATH_OR_HUB_ID --size 32 --out FOLDER

Writes SET-TOKENIZER-samples.png: reconstructions of held-out images, then samples of every prior, each above the
training image with the smallest squared error to it; and SET-TOKENIZER-gains.png: images decoded with all gains scaled.
With --drawn-only the first shows samples alone, with the error of the nearest image as a number, and the second is left
out: for sets whose images may not be shown.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hybridvq import Tokenizer, load_prior, load_tokenizer, open_images
from hybridvq.data import EvalBatches, Images
from hybridvq.generation import generate
from hybridvq.pixels import to_pixels
from hybridvq.settings import SamplingSettings

SHOWN, SEED, BATCH = 10, 0, 256
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
Row = tuple[str, np.ndarray, list[str]]  # a name, pictures (n, H, W, 3) uint8, and a text below each
TITLES = {"static": "static", "pixelcnn": "PixelCNN", "transformer": "transformer"}


def nearest(samples: Tensor, images: Images) -> tuple[Tensor, Tensor]:
    """The training image (n, 3, H, W) with the smallest mean squared error to each sample, and that error (n,)."""
    batches = EvalBatches(images, BATCH)
    best = torch.full((len(samples),), torch.inf)
    found = torch.zeros_like(samples)
    for i in range(len(batches)):
        x = batches[i]
        errors = torch.cdist(samples.flatten(1), x.flatten(1)).square() / samples[0].numel()
        error, which = errors.min(1)
        closer = error < best
        best, found[closer] = torch.where(closer, error, best), x[which[closer]]
    return found, best


@torch.inference_mode()
def scaled(tokenizer: Tokenizer, x: Tensor) -> Tensor:
    """x (n, 3, H, W) decoded with all gains times each of SCALES, (n * len(SCALES), 3, H, W), an image per row."""
    quantizer = tokenizer.quantizer
    vectors = quantizer.read(tokenizer.encode(x))  # linear in the gains
    decoded = [tokenizer.decoder(quantizer.from_code(scale * vectors)) for scale in SCALES]
    return torch.stack(decoded, 1).flatten(0, 1)


def draw_rows(rows: list[Row], path: Path, zoom: int) -> None:
    """Rows of pictures (n, H, W, 3) uint8 with a name at the left and a text below each, as a PNG."""
    side, columns = rows[0][1].shape[1] * zoom, len(rows[0][1])
    left, below, gap = 110, 14, 4
    width = left + columns * (side + gap) + gap
    height = sum(side + gap + (below if texts else 0) for _, _, texts in rows) + gap
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    top = gap
    for name, images, texts in rows:
        ax.text(6, top + side / 2, name, fontsize=8, va="center", color="#333333")
        for column, image in enumerate(images):
            x = left + column * (side + gap)
            canvas[top : top + side, x : x + side] = image.repeat(zoom, 0).repeat(zoom, 1)
            if texts:
                ax.text(
                    x + side / 2, top + side + 2, texts[column], fontsize=6.5, va="top", ha="center", color="#333333"
                )
        top += side + gap + (below if texts else 0)
    ax.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    figure.savefig(path, dpi=200, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--drawn-only", action="store_true")
    arguments = parser.parse_args()
    folder, zoom = arguments.folder, 2 if arguments.size <= 32 else 1
    name = f"{folder.parent.name}-{folder.name}"
    train, test = (open_images(arguments.data, split, size=arguments.size) for split in ("train", "test"))
    tokenizer = load_tokenizer(folder / "run")
    x = EvalBatches(test, SHOWN, SHOWN)[0]
    rows = [] if arguments.drawn_only else seen_rows(tokenizer, x)
    for prior_name, title in TITLES.items():
        if (folder / prior_name / "model").exists():
            prior = load_prior(folder / prior_name, folder / "run")
            samples = generate(prior, tokenizer, [None] * SHOWN, prior.shape, SamplingSettings(), SEED)
            found, errors = nearest(samples, train)
            texts = [f"nearest: {error:.3f}" for error in errors.tolist()]
            if arguments.drawn_only:
                rows.append((title, to_pixels(samples).numpy(), texts))
            else:
                rows.append((f"{title}:\nsamples", to_pixels(samples).numpy(), []))
                rows.append(("nearest\ntraining image", to_pixels(found).numpy(), texts))
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_rows(rows, arguments.out / f"{name}-samples.png", zoom)
    if not arguments.drawn_only:
        draw_rows(gain_rows(tokenizer, x[:4]), arguments.out / f"{name}-gains.png", zoom)


@torch.inference_mode()
def seen_rows(tokenizer: Tokenizer, x: Tensor) -> list[Row]:
    """Held-out images, and their reconstructions."""
    x_hat = tokenizer.decode(tokenizer.encode(x))
    return [("held-out images", to_pixels(x).numpy(), []), ("reconstructions", to_pixels(x_hat).numpy(), [])]


def gain_rows(tokenizer: Tokenizer, x: Tensor) -> list[Row]:
    """Images decoded with all gains times each of SCALES, an image per row."""
    swept = to_pixels(scaled(tokenizer, x)).numpy().reshape(len(x), len(SCALES), *x.shape[2:], 3)
    texts = [f"gains x {scale:g}" for scale in SCALES]
    return [(f"image {i + 1}", images, texts if i == len(x) - 1 else []) for i, images in enumerate(swept)]


if __name__ == "__main__":
    main()
