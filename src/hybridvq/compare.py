"""Several recipes, same data and steps, one result.

    plan ──► run_one(recipe, seed) ──► runs/<recipe>-seed<n>/run.json ──┐
                      ...                                               ├──► result.json
             run_one(recipe, seed) ──► runs/<recipe>-seed<n>/run.json ──┘

A run that is finished is not trained again, and one that was cut off goes on from its checkpoint.
"""

import json
import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridvq.data import EvalBatches, Images, open_images
from hybridvq.errors import ConfigError
from hybridvq.evaluation import default_device, evaluate, gain_range, reconstruct, to_pixels
from hybridvq.metrics import max_loss_spike
from hybridvq.recipe import load_recipe
from hybridvq.settings import DataSettings, Plan, Recipe
from hybridvq.tokenizer import Tokenizer
from hybridvq.training import History, resolve_precision, train

SHOWN_IMAGES = 8
CURVE_POINTS = 400
EVAL_BATCH = 256
SCHEMA = 1


def compare(
    plan: Plan, data: DataSettings, out: Path, command: str = "", say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train and measure every recipe of `plan`; write `out`/result.json and return it.

    Raises:
        ConfigError: a recipe is wrong, or `out` holds runs made with other settings.
        DataError: the images cannot be read.
        TrainingError: a run had to stop; finished runs stay, and the same call goes on from there.
    """
    recipes = {name: load_recipe(name, plan.recipe_overrides()) for name, _ in plan.runs()}
    for recipe in recipes.values():
        Tokenizer(**asdict(recipe.model))  # a wrong option shows now, not after an hour of other runs
    train_images = open_images(data.data, "train", size=data.size, skip_unreadable=data.skip_unreadable)
    test_images = open_images(data.data, "test", size=data.size, skip_unreadable=data.skip_unreadable)
    described = describe_data(data, train_images, test_images)
    out.mkdir(parents=True, exist_ok=True)
    write_originals(test_images, out / "originals.npy")
    todo = [(name, seed) for name, seed in plan.runs() if not finished(recipes[name], seed, described, out)]
    for name, seed in plan.runs():
        if (name, seed) not in todo:
            say(f"{recipes[name].title}, seed {seed}: done before")
    if plan.jobs == 1:
        for number, (name, seed) in enumerate(todo, start=1):
            say(f"[{number}/{len(todo)}] {recipes[name].title}, seed {seed}: {plan.steps} steps")
            run_one(recipes[name], seed, plan, described, train_images, test_images, out)
    else:
        run_parallel(recipes, todo, plan, data, described, out, say)
    result = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "data": described,
        "setting": {k: v for k, v in asdict(plan).items() if k not in ("recipes", "first_seed_only")},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("hybridvq", "torch", "lightning", "numpy")},
        "hardware": hardware(),
        "skipped": train_images.skipped + test_images.skipped,
        "runs": [read_run(run_folder(out, name, seed)) | label(recipes[name]) for name, seed in plan.runs()],
        "originals": "originals.npy",
    }
    write_json(out / "result.json", result)
    return result


def run_parallel(
    recipes: dict[str, Recipe],
    todo: list[tuple[str, int]],
    plan: Plan,
    data: DataSettings,
    described: dict[str, Any],
    out: Path,
    say: Callable[[str], None],
) -> None:
    """`plan.jobs` runs at a time, each in a fresh process with its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // plan.jobs)
    with ProcessPoolExecutor(plan.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        tasks = {
            pool.submit(run_in_process, recipes[name], seed, plan, data, described, out, threads): (name, seed)
            for name, seed in todo
        }
        for number, task in enumerate(as_completed(tasks), start=1):
            name, seed = tasks[task]
            task.result()
            say(f"[{number}/{len(todo)}] {recipes[name].title}, seed {seed}: done")


def run_in_process(
    recipe: Recipe, seed: int, plan: Plan, data: DataSettings, described: dict[str, Any], out: Path, threads: int
) -> None:
    torch.set_num_threads(threads)
    train_images = open_images(data.data, "train", size=data.size, skip_unreadable=data.skip_unreadable)
    test_images = open_images(data.data, "test", size=data.size, skip_unreadable=data.skip_unreadable)
    run_one(recipe, seed, plan, described, train_images, test_images, out)


def run_one(
    recipe: Recipe,
    seed: int,
    plan: Plan,
    described: dict[str, Any],
    train_images: Images,
    test_images: Images,
    out: Path,
) -> None:
    """Train one recipe with one seed, measure it on all held-out images, write its run.json."""
    folder = run_folder(out, recipe.name, seed)
    curve_batches = EvalBatches(test_images, EVAL_BATCH, plan.eval_images)
    tokenizer, history = train(recipe, train_images, curve_batches, folder, seed, resume=True, progress=plan.jobs == 1)
    tokenizer.to(default_device())
    bounds = gain_range(tokenizer, EvalBatches(train_images, EVAL_BATCH, plan.eval_images))
    measured = evaluate(tokenizer, EvalBatches(test_images, EVAL_BATCH), bounds)
    shown = EvalBatches(test_images, SHOWN_IMAGES, SHOWN_IMAGES)[0]
    np.save(folder / "reconstructions.npy", to_pixels(reconstruct(tokenizer, shown)[0]).numpy())
    run = {
        "recipe": recipe.name,
        "seed": seed,
        "steps": recipe.training.steps,
        "precision": str(resolve_precision(recipe.training.precision)),
        "threads": torch.get_num_threads(),
        "params": sum(p.numel() for p in tokenizer.parameters()),
        **measured,
        "images_per_second": history.images_per_second(recipe.training.batch_size),
        "train_seconds": history.seconds,
        "max_loss_spike": max_loss_spike(history.train_mse),
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


def run_folder(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{Path(name).stem}-seed{seed}"


def identity(recipe: Recipe, seed: int, described: dict[str, Any]) -> dict[str, Any]:
    """What a run's numbers follow from; two runs with the same are the same run."""
    return {"model": asdict(recipe.model), "training": asdict(recipe.training), "seed": seed, "data": described}


def label(recipe: Recipe) -> dict[str, str]:
    """How tables call a recipe; free to change without training it again."""
    return {"title": recipe.title, "group": recipe.group, "description": recipe.description}


def finished(recipe: Recipe, seed: int, described: dict[str, Any], out: Path) -> bool:
    """Whether `out` already holds this run.

    Raises:
        ConfigError: it holds one of that name made with other settings or images.
    """
    folder = run_folder(out, recipe.name, seed)
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
        run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{folder / 'run.json'} cannot be read ({error}); delete it to make the run again") from error
    return run


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write through a temporary file, so that a kill leaves the old file or the new one."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def write_originals(images: Images, path: Path) -> None:
    first = EvalBatches(images, SHOWN_IMAGES, SHOWN_IMAGES)[0]
    np.save(path, to_pixels(first).numpy())


def describe_data(data: DataSettings, train_images: Images, test_images: Images) -> dict[str, Any]:
    return {
        "name": train_images.name,
        "fingerprint": f"{train_images.fingerprint}-{test_images.fingerprint}",
        "size": data.size,
        "train_images": len(train_images),
        "test_images": len(test_images),
    }


def hardware() -> dict[str, Any]:
    """The device that ran, by name, and the processor's threads."""
    device = default_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {"device": device.type, "name": name, "cores": os.cpu_count()}


def processor_name() -> str:
    """The processor's marketing name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
