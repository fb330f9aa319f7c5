"""What training on ImageNet, and the tokens of a billion images, would take: a paper exercise on measured inputs.

    python -m experiments.scale docs/at-scale.json

The floating-point operations per image, and how many JPEG files a core decodes per second, are measured here; sizes,
rates and machines elsewhere are stated with their source, or as the assumptions that they are.
"""

import argparse
import io
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.speed.published import operations
from jinja2 import StrictUndefined, Template
from PIL import Image
from torch.nn import functional as F

from hybridvq.comparison.plan import hardware
from hybridvq.data import open_images
from hybridvq.data.decode import decode, fit
from hybridvq.documents import to_json
from hybridvq.recipe import load_recipe
from hybridvq.tokenizer import Tokenizer
from hybridvq.training.run import build_tokenizer
from hybridvq.writing import write_whole

TEMPLATE = Path(__file__).with_name("scale.md.j2")
DIM, FACTOR, SIZE = 256, 8, 256
IMAGENET_IMAGES, IMAGENET_BYTES = 1_281_167, 138e9
EPOCHS, BATCH = 50, 512
GPU_FLOPS, LINK_BYTES = 312e12, 600e9
UTILIZATION, CORES, READ_BYTES = 0.4, 128, 2e9
GPUS_A_NODE = 8
CLUSTER_NODES, BILLION = 16, 1_000_000_000


@dataclass(frozen=True)
class Measured:
    """The inputs that can be measured on any machine."""

    train_gflops: float  # an image, forward and backward
    encode_gflops: float  # an image
    parameters: int
    bits_per_position: float
    decoded_per_second: float  # JPEG files a core decodes, resizes and crops


def measure() -> Measured:
    recipe = load_recipe("gain-shape", {"model.dim": DIM, "model.downsampling": FACTOR})
    tokenizer = build_tokenizer(recipe, seed=0)
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    quantizer = tokenizer.quantizer
    assert quantizer.codebook_size
    assert quantizer.levels
    return Measured(
        train_gflops=operations(lambda: train_once(tokenizer, x)) / len(x) / 1e9,
        encode_gflops=operations(lambda: tokenizer.eval().encode(x)) / len(x) / 1e9,
        parameters=sum(p.numel() for p in tokenizer.parameters()),
        bits_per_position=math.log2(quantizer.codebook_size) + math.log2(quantizer.levels),
        decoded_per_second=decoding_rate(),
    )


def train_once(tokenizer: Tokenizer, x: torch.Tensor) -> None:
    result = tokenizer.train()(x)
    (F.mse_loss(result.x_hat, x) + sum(result.quantized.losses.values())).backward()


def decoding_rate(rounds: int = 40) -> float:
    """JPEG files of 500x375 pixels and about ImageNet's bytes, by the data loader's own functions, on one core."""
    photos = open_images("photos", "train", size=500)
    files = []
    for i in range(8):
        content = io.BytesIO()
        Image.fromarray(photos.crop(i % len(photos), None)[:375]).save(content, format="JPEG", quality=95)
        files.append(content.getvalue())
    times = []
    for number in range(rounds):
        start = time.process_time()
        fit(decode(files[number % len(files)]), SIZE)
        times.append(time.process_time() - start)
    return 1 / median(times)


def limits(gflops: float, m: Measured) -> dict[str, float]:
    """Images per second that each part of a node allows, where an image takes so many operations."""
    return {
        "graphics processors": GPUS_A_NODE * GPU_FLOPS * UTILIZATION / (gflops * 1e9),
        "decoding": CORES * m.decoded_per_second,
        "reading": READ_BYTES * IMAGENET_IMAGES / IMAGENET_BYTES,
    }


def derived(m: Measured) -> dict[str, Any]:
    """Everything that the page shows and that is not an input."""
    train, encode = limits(m.train_gflops, m), limits(m.encode_gflops, m)
    exchanged = 2 * (GPUS_A_NODE - 1) / GPUS_A_NODE * 4 * m.parameters  # a ring's share of float32 gradients
    positions = (SIZE // FACTOR) ** 2
    return {
        "train": train,
        "train_first": min(train, key=train.__getitem__),
        "train_hours": EPOCHS * IMAGENET_IMAGES / min(train.values()) / 3600,
        "steps": EPOCHS * IMAGENET_IMAGES // BATCH,
        "step_ms": BATCH / train["graphics processors"] * 1e3,
        "exchange_ms": exchanged / LINK_BYTES * 1e3,
        "encode": {name: CLUSTER_NODES * rate for name, rate in encode.items()},
        "encode_first": min(encode, key=encode.__getitem__),
        "encode_hours": BILLION / min(encode.values()) / CLUSTER_NODES / 3600,
        "image_bytes": IMAGENET_BYTES / IMAGENET_IMAGES,
        "positions": positions,
        "token_bytes": positions * m.bits_per_position / 8,
    }


def main(path: Path) -> None:
    measured = measure()
    write_whole(path, to_json(asdict(measured) | {"hardware": hardware()}))
    constants = {key: value for key, value in globals().items() if key.isupper()}
    template = Template(TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined, keep_trailing_newline=True)
    page = template.render(constants, m=measured, d=derived(measured), machine=hardware()["name"])
    write_whole(path.with_suffix(".md"), page.encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="file of the figures, such as docs/at-scale.json")
    main(parser.parse_args().path)
