"""A plan to its result."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hybridvq._version import __version__
from hybridvq.comparison.models import show_models
from hybridvq.comparison.parallel import run_parallel
from hybridvq.comparison.run import (
    Sets,
    is_finished,
    open_sets,
    read_run,
    run_folder,
    run_one,
    save_array,
    write_json,
)
from hybridvq.comparison.shown import ORIGINALS, choose_images
from hybridvq.devices import Device, find_device
from hybridvq.documents import read_json
from hybridvq.errors import ConfigError, ShapeError
from hybridvq.losses import build_loss
from hybridvq.recipe import load_recipe
from hybridvq.settings import DataSettings, Plan, Recipe, changed
from hybridvq.tokenizer import Tokenizer
from hybridvq.training import check_loggers
from hybridvq.writing import remove_partial, sole_writer

SCHEMA = 1
RESULT = "result.json"


def compare(
    plan: Plan | Sequence[str],
    data: DataSettings | str | Path = "photos",
    out: str | Path = "runs/compare",
    command: str = "",
    say: Callable[[str], None] = print,
    device: Device = "auto",
    *,
    size: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    models: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and measure every recipe of `plan`; write `out`/result.json and return it.

    Names or files of recipes do for a plan, and what `hybridvq train --data` takes for the data, with crops of `size`
    pixels. `steps` and `batch_size` replace those of the plan. With `models`, trained ones with tables for files, the
    report opens with what these make of whole photographs.

    Raises:
        ConfigError: a recipe is wrong, there is no such device, the data are to be streamed, `out` holds runs made with
            other settings, or another process writes there.
        DataError: the images cannot be read.
        ModelError, CodecError: one of the models cannot be loaded, or has no tables for files.
        TrainingError: a run had to stop; finished runs stay, and the same call continues from there.
    """
    plan = plan if isinstance(plan, Plan) else Plan([*map(str, plan)])
    plan = changed(plan, steps=steps, batch_size=batch_size)
    data, out = DataSettings.of(data, size), Path(out)
    if data.stream:
        raise ConfigError("compare shows every recipe the same images and cannot stream them; leave out --stream")
    find_device(device)
    runs = load_runs(plan)
    images = open_sets(data, plan.validation)
    described = describe_data(data, images)
    with sole_writer(out):
        remove_partial(out)
        check_other(out, runs)
        todo = []
        for recipe, seed in runs:
            if is_finished(recipe, seed, described, out):
                say(f"{recipe.title}, seed {seed}: done before")
            else:
                todo.append((recipe, seed))
        for recipe in {recipe.name: recipe for recipe, _ in todo}.values():
            check_recipe(recipe, data.size)
        if len(todo) == len(runs) or not (out / ORIGINALS).is_file():  # finished runs have reconstructed those there
            save_array(out / ORIGINALS, choose_images(images.test))
        shown = show_models(models, out, device) if models else []
        try:
            if plan.jobs == 1:
                for number, (recipe, seed) in enumerate(todo, start=1):
                    say(f"[{number}/{len(todo)}] {recipe.title}, seed {seed}: {plan.steps} steps")
                    run_one(recipe, seed, plan, described, images, out, device)
            elif todo:
                run_parallel(todo, plan, data, described, out, say, device)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command continues from the checkpoints") from None
        result = describe_comparison(plan, command, device) | {
            "data": described,
            "skipped": images.train.skipped + images.test.skipped,
            "runs": [read_run(run_folder(out, recipe, seed)) | label(recipe) for recipe, seed in runs],
            "originals": ORIGINALS,
            "models": shown,
        }
        write_json(out / RESULT, result)
        return result


def describe_comparison(plan: Plan, command: str, device: Device = "auto") -> dict[str, Any]:
    """When, how, with what and on what a comparison was made."""
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "setting": {k: v for k, v in asdict(plan).items() if k not in ("recipes", "first_seed_only")},
        "versions": {"python": platform.python_version(), "hybridvq": __version__}
        | {name: version(name) for name in ("torch", "lightning", "numpy")},
        "hardware": hardware(device),
    }


def load_runs(plan: Plan) -> list[tuple[Recipe, int]]:
    """Every run of the plan, once, in the order of the table.

    Raises:
        ConfigError: a recipe cannot be read, or two files have one name.
    """
    recipes = {name: load_recipe(name, plan.recipe_overrides()) for name, _ in plan.runs()}
    named: dict[str, Recipe] = {}
    for name, recipe in recipes.items():
        if named.setdefault(recipe.name, recipe) != recipe:
            raise ConfigError(f"two different recipes are called {recipe.name}, one of them {name}; rename a file")
    together = dict.fromkeys((recipes[name].name, seed) for name, seed in plan.runs())
    return [(named[name], seed) for name, seed in together]


def check_other(out: Path, runs: list[tuple[Recipe, int]]) -> None:
    """Raise ConfigError if `out` holds the result of a comparison with other runs than these, which would be lost."""
    try:
        found = {(run["recipe"], run["seed"]) for run in read_json(out / RESULT)["runs"]}
    except (OSError, ValueError, KeyError, TypeError):
        return
    for recipe, seed in sorted(found - {(recipe.name, seed) for recipe, seed in runs}):
        raise ConfigError(
            f"{out} holds another comparison, which also has {recipe} with seed {seed}; choose another --out, or add "
            "that to this one"
        )


def check_recipe(recipe: Recipe, size: int) -> None:
    """Try the model and its loss on one blank batch, so that a wrong option shows now, not after hours of other runs.

    Raises:
        ConfigError: an option is wrong, or does not fit the batch or images of `size` pixels.
    """
    try:
        check_loggers(recipe.training.logger)
        tokenizer = Tokenizer(**asdict(recipe.model))
        tokenizer.check_size(size)
        side = size // tokenizer.downsampling
        with torch.no_grad():
            quantized = tokenizer.quantizer(torch.ones(recipe.training.batch_size, tokenizer.dim, side, side))
            loss, x = build_loss(recipe.training.loss), torch.zeros(recipe.training.batch_size, 3, size, size)
            loss.check(tokenizer.quantizer)
            loss(x, x, quantized.rate)
    except (ConfigError, ShapeError) as error:
        raise ConfigError(f"recipe {recipe.name}: {error}") from error


def label(recipe: Recipe) -> dict[str, str]:
    """How tables call a recipe; free to change without training it again."""
    return {"title": recipe.title, "group": recipe.group, "description": recipe.description}


def describe_data(data: DataSettings, images: Sets) -> dict[str, Any]:
    return {
        "name": images.test.name,
        "fingerprint": f"{images.train.fingerprint}-{images.test.fingerprint}",
        "size": data.size,
        "train_images": len(images.train),
        "test_images": len(images.test),
    }


def hardware(named: Device = "auto") -> dict[str, Any]:
    """The device that ran, by name, and the processor's threads."""
    device = find_device(named)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {"device": device.type, "name": name, "cores": os.cpu_count()}


def processor_name() -> str:
    """The processor's marketing name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
