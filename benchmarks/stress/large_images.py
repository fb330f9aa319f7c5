"""The peak of memory, and the time, of compressing and decompressing images of up to 100 megapixels.

    python -m benchmarks.stress.large_images benchmarks/stress/large_images.json

Each size in a process of its own, which makes an image of waves and noise, (H, W, 3) uint8, and a model: a gain-shape
model with random weights at width 64, K = 1,024 and L = 8, as the recipe has, and even tables; or the bundled `photos`.
Memory is what the process holds at most, image included; what it held before the first call, its libraries and the
image, is beside it.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.stress.stream_memory import in_fresh_process, peak_mb
from benchmarks.timing import write_result
from hybridvq import Codec, CodecSettings
from hybridvq.codec import StageTables, Tables
from hybridvq.codec.tables import NEIGHBORS
from hybridvq.recipe import load_recipe
from hybridvq.training.run import build_tokenizer

SIDES = (1000, 3162, 10_000)  # 1, 10 and 100 megapixels
THREADS = 1
HYBRID, CAMERA = "photos", 4899  # 24 megapixels
ROWS = 500  # of the image, made together


def make_codec() -> Codec:
    """A gain-shape model that was not trained."""
    tokenizer = build_tokenizer(load_recipe("gain-shape"), seed=0).eval()
    k, levels, dim, width = 1024, 8, tokenizer.quantizer.code_dim, 8
    features = dim + levels + 1
    shapes = {
        "vectors": (k, dim), "gains": (levels,), "near": (len(NEIGHBORS) * features, width), "near_bias": (width,),
        "level_out": (width, levels), "level_bias": (levels,), "joint": (width, width), "joint_bias": (levels, width),
        "code_out": (width, k), "code_bias": (k,),
    }  # fmt: skip
    zeros = {name: np.zeros(shape, np.int16) for name, shape in shapes.items()}
    stage = StageTables(shares=np.ones((levels, k), np.uint32), **zeros)
    return Codec(tokenizer, Tables("00" * 32, k, levels, (stage,)))


def make_image(side: int) -> np.ndarray:
    generator, pixels = np.random.default_rng(0), np.empty((side, side, 3), np.uint8)
    x = np.arange(side)
    for top in range(0, side, ROWS):
        strip = pixels[top : top + ROWS]
        y = np.arange(top, top + len(strip))[:, None]
        waves = np.sin(x / 40) + np.cos(y / 60 + x / 90)
        strip[:] = (127 + 50 * waves[..., None] + generator.integers(-9, 10, strip.shape)).clip(0, 255)
    return pixels


def measure(model: str, side: int) -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    codec, pixels = Codec.load(model) if model == HYBRID else make_codec(), make_image(side)
    settings = CodecSettings() if model == HYBRID else CodecSettings(mode="static")
    before, start = peak_mb(), time.process_time()
    data = codec.compress(pixels, settings)
    compressed, middle = peak_mb(), time.process_time()
    del pixels
    codec.decompress(data)
    end = time.process_time()
    return {
        "model": model,
        "side": side,
        "bytes": len(data),
        "before_mb": round(before),
        "compress_peak_mb": round(compressed),
        "peak_mb": round(peak_mb()),
        "compress_s": round(middle - start, 1),
        "decompress_s": round(end - middle, 1),
    }


def main(path: Path) -> None:
    torch.set_num_threads(THREADS)
    tried = [*(("gain-shape", side) for side in SIDES), (HYBRID, CAMERA)]
    cases = [in_fresh_process(measure, model, side) for model, side in tried]
    table = [
        "| model | image | before | peak, compressing | and decompressing | compress | decompress |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        table.append(
            f"| {case['model']} | {case['side']:,}x{case['side']:,} | {case['before_mb']:,} MB "
            f"| {case['compress_peak_mb']:,} MB | {case['peak_mb']:,} MB "
            f"| {case['compress_s']:.1f} s | {case['decompress_s']:.1f} s |"
        )
    write_result(path, "benchmarks.stress.large_images", {"cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
