"""A training run so small that thousands of its steps take minutes, for what is about runs and not about speed."""

from pathlib import Path
from typing import Any

from hybridvq.data import EvalBatches, Images, open_images
from hybridvq.recipe import load_recipe
from hybridvq.settings import Recipe
from hybridvq.training import History, train

SIZE, BATCH = 16, 8
SETTING = f"width 8, {BATCH} images of {SIZE}x{SIZE}, 64 codes"


def small_recipe(**training: Any) -> Recipe:
    """VQ-VAE at width 8 with 64 codes, which are restarted when dead."""
    keys = {"batch_size": BATCH, "precision": "32-true", "eval_every": 1000} | training
    return load_recipe(
        "vector",
        {"model.dim": 8, "model.options": {"codebook_size": 64}} | {f"training.{k}": v for k, v in keys.items()},
    )


def run_small(recipe: Recipe, folder: Path, images: Images | None = None) -> History:
    """Train it on the sample photographs, or on `images`, from the last checkpoint in `folder`."""
    train_images = images or open_images("photos", "train", size=SIZE)
    test_batches = EvalBatches(open_images("photos", "test", size=SIZE), 64, 64)
    return train(recipe, train_images, test_batches, folder, resume=True, progress=False)[1]
