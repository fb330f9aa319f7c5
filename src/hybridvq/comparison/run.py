"""One run of a comparison: a recipe with a seed, trained, measured and written down."""

import io
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hybridvq.comparison.shown import read_chosen
from hybridvq.data import EvalBatches, Images, open_side, set_aside
from hybridvq.devices import Device, find_device
from hybridvq.documents import read_json, to_json
from hybridvq.errors import ConfigError, TrainingError
from hybridvq.evaluation import evaluate, gain_range, reconstruct
from hybridvq.metrics import max_loss_spike, worst_batches
from hybridvq.pixels import to_pixels
from hybridvq.settings import DataSettings, Plan, Recipe
from hybridvq.training import History, resolve_precision, train
from hybridvq.writing import write_whole

CURVE_POINTS = 400
EVAL_BATCH = 256


class Sets(NamedTuple):
    """The images of a comparison: those learned from, those of the curves, those of the final numbers."""

    train: Images
    curve: Images
    test: Images


def open_sets(data: DataSettings, validation: int = 0) -> Sets:
    """Open them; the curves are of test images unless `validation` training images are kept for them.

    Raises:
        ConfigError: there are not as many.
        DataError: the images cannot be read.
    """
    train_images, test_images = open_side(data, "train"), open_side(data, "test")
    return Sets(*(set_aside(train_images, validation) if validation else (train_images, test_images)), test_images)


def run_one(
    recipe: Recipe,
    seed: int,
    plan: Plan,
    described: dict[str, Any],
    images: Sets,
    out: Path,
    device: Device = "auto",
) -> None:
    """Train one recipe with one seed, measure it on all test images, write its run.json."""
    folder = run_folder(out, recipe, seed)
    curve_batches = EvalBatches(images.curve, EVAL_BATCH, plan.eval_images)
    try:
        tokenizer, history = train(
            recipe,
            images.train,
            curve_batches,
            folder,
            seed,
            resume=True,
            progress=plan.jobs == 1,
            watch=plan.watch,
            device=device,
        )
    except TrainingError as error:
        raise TrainingError(f"recipe {recipe.name}, seed {seed}: {error}") from error
    place = find_device(device)
    tokenizer.to(place)
    bounds = gain_range(tokenizer, EvalBatches(images.train, EVAL_BATCH, plan.eval_images))
    measured = evaluate(tokenizer, EvalBatches(images.test, EVAL_BATCH), bounds)
    save_array(folder / "reconstructions.npy", reconstruct(tokenizer, read_chosen(out))[0])
    run = {
        "recipe": recipe.name,
        "seed": seed,
        "steps": recipe.training.steps,
        "precision": str(resolve_precision(recipe.training.precision, place)),
        "threads": torch.get_num_threads(),
        "params": sum(p.numel() for p in tokenizer.parameters()),
        **measured,
        "images_per_second": history.images_per_second(recipe.training.batch_size),
        "train_seconds": history.seconds,
        "max_loss_spike": max_loss_spike(history.train_mse),
        "worst_batches": worst_batches(history.train_mse),
        "warnings": history.warnings,
        "curve": curve(history),
        "images": f"runs/{folder.name}/reconstructions.npy",
        "identity": identity(recipe, seed, described),
    }
    write_json(folder / "run.json", run)


def curve(history: History) -> dict[str, list[Any]]:
    """Training losses as means over equal stretches of steps, at most 400 of them, and every test measurement."""
    steps = len(history.train_mse)
    edges = np.linspace(0, steps, min(CURVE_POINTS, steps) + 1).round().astype(int)
    stretches = list(pairwise(edges.tolist()))

    def means(values: list[float]) -> list[float]:
        return [float(np.mean(values[a:b])) for a, b in stretches]

    return {
        "step": edges[1:].tolist(),
        "train_mse": means(history.train_mse),
        "train_mse_max": [max(history.train_mse[a:b]) for a, b in stretches],
        "train_quantization": means(history.train_quantization),
        "test_step": [test["step"] for test in history.tests],
        "test_mse": [test["test_mse"] for test in history.tests],
        "test_quantization": [test["test_quantization_loss"] for test in history.tests],
        "test_codes_used": [test["codes_used"] for test in history.tests],
    }


def run_folder(out: Path, recipe: Recipe, seed: int) -> Path:
    return out / "runs" / f"{recipe.name}-seed{seed}"


def identity(recipe: Recipe, seed: int, described: dict[str, Any]) -> dict[str, Any]:
    """What a run's numbers follow from; two runs with the same are the same run."""
    return {"model": asdict(recipe.model), "training": recipe.training.identity(), "seed": seed, "data": described}


def is_finished(recipe: Recipe, seed: int, described: dict[str, Any], out: Path) -> bool:
    """Whether `out` already holds this run.

    Raises:
        ConfigError: it holds one of that name made with other settings or images.
    """
    folder = run_folder(out, recipe, seed)
    if not (folder / "run.json").is_file():
        return False
    if read_run(folder)["identity"] != identity(recipe, seed, described):
        raise ConfigError(f"{folder} was made with other settings or images; choose another --out, or delete it")
    return True


def read_run(folder: Path) -> dict[str, Any]:
    """A finished run's entry.

    Raises:
        ConfigError: run.json is not readable.
    """
    try:
        run: dict[str, Any] = read_json(folder / "run.json")
        run["identity"], run["test_mse"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / 'run.json'} cannot be read ({error}); delete it to make the run again") from error
    return run


def write_json(path: Path, content: dict[str, Any]) -> None:
    save(path, to_json(content))


def save_array(path: Path, x: torch.Tensor) -> None:
    """Images (B, 3, H, W) in [-1, 1] as a numpy file of (B, H, W, 3) uint8."""
    content = io.BytesIO()
    np.save(content, to_pixels(x).numpy())
    save(path, content.getbuffer())


def save(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror or error}); make room there; the same command continues from "
            "the checkpoints"
        ) from error
