"""Models and runs small enough to train in a second."""

import zlib
from functools import cache

import numpy as np
from PIL import Image

from hybridvq.data import EvalBatches, Images, open_images
from hybridvq.settings import ModelSettings, Recipe, TrainingSettings

SIZE = 16
STEPS = 20
CODES = {"codebook_size": 64, "restart_every": 4}
MODELS = {
    "vector": ("vector", CODES),
    "vector-ema": ("vector", CODES | {"learn": "ema"}),
    "vector-uniform": ("vector", CODES | {"init": "uniform"}),
    "projected": ("projected", CODES),
    "frequency": ("frequency", CODES | {"frequent": 8, "warmup_steps": 3}),
    "frequency-projected": ("frequency", CODES | {"frequent": 8, "warmup_steps": 3, "rare": "projected"}),
    "gain-shape": ("gain-shape", CODES | {"codebook_size": 120, "levels": 4}),
    "gaussian": ("gaussian", {}),
    "identity": ("identity", {}),
    "fsq": ("fsq", {"grid": [5, 4, 3]}),
}
COUNTING = {  # those that count their bits and are trained by rate and distortion
    "hybrid": ("hybrid", CODES | {"groups": 2, "codebook_size": 4, "code_dim": 2, "width": 8, "aside_steps": 7}),
    "hybrid-scalar": ("hybrid", {"groups": 0}),
}


def model(name: str = "vector", **options) -> ModelSettings:
    quantizer, common = (MODELS | COUNTING)[name]
    return ModelSettings(dim=8, downsampling=4, quantizer=quantizer, options=common | options)


def recipe(name: str = "vector", **training) -> Recipe:
    settings = {"steps": STEPS, "batch_size": 8, "eval_every": 6, "checkpoint_every": 5, "precision": "32-true"}
    if name in COUNTING:
        settings |= {"loss": "rate-distortion", "clip": 1.0, "average": 0.9}
    return Recipe(title=name, name=name, model=model(name), training=TrainingSettings(**(settings | training)))


@cache
def images(split: str = "train", size: int = SIZE) -> Images:
    return open_images("photos", split, size=size)


def test_batches() -> EvalBatches:
    return EvalBatches(images("test"), 16, 24)


test_batches.__test__ = False


def huge_png(png: bytes) -> bytes:
    """The same file with a header that claims 60000x60000 pixels, most of which do not follow."""
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


COMMAND_LINE = f"--size {SIZE} --model.dim 8 --model.options.codebook_size 16 --training.batch_size 8".split()
TRAIN = ["train", "--recipe", "vector", "--training.steps", "20", "--eval-images", "16", *COMMAND_LINE]


def noise(path, side=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path
