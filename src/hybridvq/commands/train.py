"""`hybridvq train`."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    EVAL_BATCH,
    add_data_arguments,
    add_run_arguments,
    check_eval_images,
    checked_out,
    data_settings,
    list_skipped,
    open_test_side,
    open_train_side,
)
from hybridvq.commands.parser import add_short_names
from hybridvq.launch import find_processes
from hybridvq.printing import say
from hybridvq.recipe import add_recipe_arguments, load_recipe, recipe_names
from hybridvq.saved import check_begun
from hybridvq.settings import Recipe

SUMMARY = "Train one recipe on images."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--recipe", default="vector")
    defaults = load_recipe(peek.parse_known_args(list(words))[0].recipe)
    names = ", ".join(recipe_names())
    parser.add_argument("--recipe", type=str, default="vector", help=f"what to train: a YAML file, or one of {names}")
    add_data_arguments(parser)
    add_run_arguments(parser, f"runs/{defaults.name}", "the weights, the order of the images and their crops")
    parser.add_argument(
        "--watch",
        type=Literal["off", "warn", "stop"],
        default="warn",
        help="warn of collapsing codes, runaway gains and loss spikes, stop at them, or neither",
    )
    parser.add_argument(
        "--print_recipe",
        action="store_true",
        help="print the recipe with all overrides, for a file of your own, and stop",
    )
    add_recipe_arguments(parser)
    add_short_names(parser, words)
    parser.set_defaults(recipe_keys(defaults))


def recipe_keys(recipe: Recipe) -> dict[str, Any]:
    """What a recipe's YAML file says."""
    return {key: value for key, value in asdict(recipe).items() if key != "name"}


def run(arguments: Namespace, words: Sequence[str]) -> None:
    name = Path(arguments.recipe).stem if Path(arguments.recipe).is_file() else arguments.recipe
    recipe = Recipe(**{key: arguments[key] for key in recipe_keys(Recipe())}, name=name)
    if arguments.print_recipe:
        print(yaml.safe_dump(recipe_keys(recipe), sort_keys=False, allow_unicode=True), end="")
        return
    check_eval_images(arguments)
    data, folder = data_settings(arguments), checked_out(arguments.out)
    check_begun(folder, arguments.resume)
    from hybridvq.data import EvalBatches
    from hybridvq.training import train

    first = find_processes(arguments.devices, arguments.num_nodes).rank == 0
    images = open_train_side(data)
    held_out = open_test_side(data, arguments.eval_images if data.stream else None)
    if first:
        list_skipped(images.skipped + held_out.skipped)
    test_batches = EvalBatches(held_out, EVAL_BATCH, arguments.eval_images)
    _, history = train(
        recipe,
        images,
        test_batches,
        folder,
        arguments.seed,
        arguments.resume,
        watch=arguments.watch,
        devices=arguments.devices,
        num_nodes=arguments.num_nodes,
        device=arguments.device,
        say=say,
    )
    if data.stream:
        list_skipped(images.skipped)
    if not first:
        return
    speed = history.images_per_second(recipe.training.batch_size)
    error, steps = history.tests[-1]["test_mse"], recipe.training.steps
    say(f"test MSE {error:.4f} after {steps} steps, {speed:.0f} images per second")
    say(f"model: {folder / 'model'}")
