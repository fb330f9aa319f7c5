"""The share of a training run that waits for images.

    python -m benchmarks.speed.feeding benchmarks/speed/feeding.json

Sample photographs at 64x64 and 256x256, from memory and as JPEG files that are decoded at every access, as a set too
large for memory is. Each step waits for its batch and then trains the `vector` recipe on it, at the width of the
published tables and at twice that; the share is the time to the batch over the time of both.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.timing import WARM_UP, write_result
from hybridvq.data import Images, TrainBatches, open_images
from hybridvq.recipe import load_recipe
from hybridvq.training.run import build_tokenizer

CASES = [(64, 64, dim, files) for dim in (64, 128) for files in (False, True)]
CASES += [(256, 8, dim, files) for dim in (64, 128) for files in (False, True)]  # size, batch, width, from files
STEPS = 12
FILES = 64


def jpegs(folder: Path, size: int) -> Images:
    """Crops of the sample photographs, a fifth larger than `size`, as files that are decoded when they are read."""
    photos = open_images("photos", "train", size=size * 6 // 5)
    for i in range(FILES):
        crop = photos.crop(i % len(photos), np.random.default_rng(i))
        Image.fromarray(crop).save(folder / f"{i:03}.jpg", quality=90)
    with patch("hybridvq.data.images.MEMORY_BUDGET", 0):
        return open_images(str(folder), "train", size=size)


def time_case(size: int, batch: int, dim: int, images: Images) -> dict[str, float]:
    tokenizer = build_tokenizer(load_recipe("vector", {"model.dim": dim}), seed=0)
    optimizer = torch.optim.Adam(tokenizer.parameters(), 4e-4, fused=True)
    waits, steps = [], []
    batches = TrainBatches(images, batch, WARM_UP + STEPS, seed=0)
    for number in range(len(batches)):
        start = time.perf_counter()
        x = batches[number].contiguous(memory_format=torch.channels_last)
        fed = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            result = tokenizer(x)
        optimizer.zero_grad()
        (F.mse_loss(result.x_hat.float(), x) + sum(result.quantized.losses.values())).backward()
        optimizer.step()
        if number >= WARM_UP:
            waits.append(fed - start)
            steps.append(time.perf_counter() - fed)
    return {
        "waiting_share": round(median(w / (w + s) for w, s in zip(waits, steps, strict=True)), 4),
        "images_per_second_fed": round(batch / median(waits)),
        "images_per_second_trained": round(batch / median(steps), 1),
    }


def main(path: Path) -> None:
    cases: list[dict[str, Any]] = []
    for size, batch, dim, files in CASES:
        with tempfile.TemporaryDirectory() as folder:
            images = jpegs(Path(folder), size) if files else open_images("photos", "train", size=size)
            case = {"size": size, "batch": batch, "dim": dim, "from": "JPEG files" if files else "memory"}
            cases.append(case | time_case(size, batch, dim, images))
    table = [
        "| images | from | width | share of the time waiting | images per second, fed | trained |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for case in cases:
        table.append(
            f"| {case['size']}x{case['size']} | {case['from']} | {case['dim']} | {case['waiting_share']:.1%} "
            f"| {case['images_per_second_fed']:,} | {case['images_per_second_trained']:,.0f} |"
        )
    write_result(path, "benchmarks.speed.feeding", {"steps": STEPS, "cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
