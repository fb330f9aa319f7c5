"""`hybridvq compare`."""

import shlex
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    add_data_arguments,
    add_device_argument,
    checked_out,
    data_settings,
    list_skipped,
    settings_of,
)
from hybridvq.commands.parser import given_values
from hybridvq.errors import ConfigError
from hybridvq.launch import find_processes
from hybridvq.printing import say
from hybridvq.recipe import YamlFile, recipe_names, recipe_path
from hybridvq.settings import Plan

SUMMARY = "Train recipes on the same images and report the difference."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--config", action=YamlFile, help="YAML file with any of the options below")
    add_data_arguments(parser)
    names = ", ".join(recipe_names())
    parser.add_argument(
        "--recipes", nargs="+", type=str, default=[], help=f"what to compare: YAML files, or names out of {names}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="each recipe is trained once with each")
    parser.add_argument(
        "--first_seed_only", nargs="+", type=str, default=[], help="more recipes, trained with the first seed alone"
    )
    parser.add_class_arguments(Plan, skip={"recipes", "seeds", "first_seed_only"})
    parser.add_argument(
        "-o", "--out", type=str, default="runs/compare", help="folder to write; a second call continues there"
    )
    parser.add_argument(
        "--show_models", nargs="+", type=str, default=[], help="models that open the report, on whole photographs"
    )
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    arguments.overrides |= single_overrides(words)
    plan = settings_of(Plan, arguments)
    if find_processes().world_size > 1:
        raise ConfigError("compare trains on one device; start it without torchrun or srun, and --jobs runs at a time")
    for recipe, _ in plan.runs():
        recipe_path(recipe)
    data, out = data_settings(arguments), checked_out(arguments.out)
    from hybridvq.comparison import compare
    from hybridvq.report import print_table, write_report

    command = shlex.join(["hybridvq", *words])
    result = compare(plan, data, out, command, device=arguments.device, models=arguments.show_models)
    list_skipped(result["skipped"])
    page = write_report(out)
    print_table(result)
    say(f"report: {page}")


def single_overrides(words: Sequence[str]) -> dict[str, str]:
    """The recipe keys of `--overrides.KEY VALUE`, of which jsonargparse keeps one in each nested mapping."""
    prefix = "--overrides."
    return {name.removeprefix(prefix): value for name, value in given_values(words) if name.startswith(prefix)}
