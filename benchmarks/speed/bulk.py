"""How much faster `hybridvq tokenize` is than a plain loop over `tokenizer.encode`, and what it writes.

    python -m benchmarks.speed.bulk benchmarks/speed/bulk.json [IMAGES]

The same images, crops of the sample photographs, by the gain-shape recipe's network: once in a loop in this process,
once by `tokenize` with one worker and once with two, in turn, on one thread each; the table shows medians of the ratios
in a round. Starting the two worker processes is part of their time, so give enough images (100,000 if not given).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.timing import in_turn, medians, ratio, write_result
from hybridvq import Tokenizer, load_recipe, load_tokenizer, open_images, tokenize
from hybridvq.data import EvalBatches, Images
from hybridvq.training.run import build_tokenizer

ROUNDS = 3
BATCH = 64
IMAGES = 100_000


class Repeated(Images):
    """`count` images: those of a set, again and again."""

    def __init__(self, images: Images, count: int) -> None:
        self.images, self.count = images, count
        self.name, self.split, self.size = images.name, images.split, images.size
        self.fingerprint, self.skipped = f"{images.fingerprint} {count}", []

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> np.ndarray:
        return self.images.pixels(index % len(self.images))

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        return self.images.origin(index % len(self.images), height, width)


def save_model(folder: Path, images: Images) -> Path:
    """The recipe's network, its codes started from one batch."""
    tokenizer = build_tokenizer(load_recipe("gain-shape"), seed=0)
    tokenizer.train()(EvalBatches(images, 256)[0])
    tokenizer.eval().save_pretrained(folder)
    return folder


def loop(tokenizer: Tokenizer, images: Images) -> None:
    batches = EvalBatches(images, BATCH)
    with torch.inference_mode():
        for i in range(len(batches)):
            tokenizer.encode(batches[i])


def by_workers(model: Path, images: Images, workers: int, sizes: list[int]) -> Callable[[], None]:
    def run() -> None:
        with TemporaryDirectory() as out:
            sizes.append(tokenize(model, images, out, workers=workers, batch_size=BATCH).bytes)

    return run


def main(path: Path, count: int) -> None:
    torch.set_num_threads(1)
    images, sizes = Repeated(open_images("photos", "train", size=32), count), list[int]()
    with TemporaryDirectory() as folder:
        model = save_model(Path(folder), images)
        tokenizer = load_tokenizer(model)
        sides = {
            "a loop over encode": lambda: loop(tokenizer, images),
            "tokenize, 1 worker": by_workers(model, images, 1, sizes),
            "tokenize, 2 workers": by_workers(model, images, 2, sizes),
        }
        times = in_turn(sides, ROUNDS)
    plain, *_ = times.values()
    speeds = {name: ratio(plain, values) for name, values in times.items()}
    per_second = {name: round(count / ms * 1e3, 1) for name, ms in medians(times).items()}
    table = ["| | images per second / the loop's |", "|---|--:|"]
    table += [f"| {name} | {value:.2f} |" for name, value in speeds.items()]
    table += ["", f"{sizes[-1] / count:.1f} bytes per image on disk, {count} images"]
    content = {"rounds": ROUNDS, "images": count, "images_per_second": per_second, "over_loop": speeds}
    write_result(path, "benchmarks.speed.bulk", content | {"bytes_per_image": sizes[-1] / count}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else IMAGES)
