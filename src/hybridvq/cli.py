"""The command line: parse, build, call. Heavy imports wait until a command runs."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from hybridvq.errors import HybridVQError
from hybridvq.recipe import BASE, add_recipe_arguments, load_recipe, recipe_names, recipe_path
from hybridvq.settings import DataSettings, Plan, Recipe

EVAL_BATCH = 64
RECIPE_KEYS = ("title", "group", "description", "model", "training")
EXAMPLES = """examples:
  hybridvq compare --recipes vector projected --steps 500      compare two quantizers on sample photographs
  hybridvq train --recipe vector --data my/photos --size 64    train a tokenizer on your own images
  hybridvq evaluate runs/vector --data my/photos               measure it on held-out images
  hybridvq reconstruct runs/vector cat.jpg --out out           send an image through tokens and back
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, or 2 after one sentence on what went wrong."""
    words = [underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    try:
        parser = build_parser(words)
        arguments = parser.instantiate(parser.parse_args(words))
        command = arguments.subcommand
        COMMANDS[command][1](arguments[command], words)
    except (HybridVQError, ArgumentError) as error:
        print(f"hybridvq: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hybridvq: interrupted", file=sys.stderr)
        return 130
    return 0


def underscored(word: str) -> str:
    """--skip-unreadable and --skip_unreadable are the same option; values keep their dashes."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def build_parser(words: Sequence[str]) -> ArgumentParser:
    """The whole command line; `words` are looked at for --recipe, whose values are the defaults shown by --help."""
    parser = ArgumentParser(
        prog="hybridvq",
        description="Train, measure and compare image tokenizers with discrete, continuous and mixed latents.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    commands = parser.add_subcommands(title="commands", metavar="COMMAND")
    for name, (arguments, _, summary) in COMMANDS.items():
        command = arguments(words) if words[:1] == [name] else ArgumentParser(exit_on_error=False)
        command.description = summary
        commands.add_subcommand(name, command, help=summary)
    return parser


def train_arguments(words: Sequence[str]) -> ArgumentParser:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--recipe", default="vector")
    recipe = peek.parse_known_args(list(words))[0].recipe
    load_recipe(recipe)
    parser = ArgumentParser(exit_on_error=False, default_config_files=[str(BASE), str(recipe_path(recipe))])
    parser.add_argument(
        "--recipe", type=str, default="vector", help=f"a YAML file, or one of {', '.join(recipe_names())}"
    )
    add_data_arguments(parser)
    parser.add_argument("--out", type=str, default="", help="folder to write; runs/RECIPE if not given")
    parser.add_argument("--seed", type=int, default=0, help="of weights, image order and crops")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--eval_images", type=int, default=2048, help="held-out images measured for the curve")
    add_recipe_arguments(parser)
    return parser


def run_train(arguments: Namespace, words: Sequence[str]) -> None:
    recipe = Recipe(**{key: arguments[key] for key in RECIPE_KEYS}, name=recipe_path(arguments.recipe).stem)
    data = data_settings(arguments)
    from hybridvq.data import EvalBatches, open_images
    from hybridvq.training import train

    images = open_images(data.data, "train", size=data.size, skip_unreadable=data.skip_unreadable)
    held_out = open_images(data.data, "test", size=data.size, skip_unreadable=data.skip_unreadable)
    list_skipped(images.skipped + held_out.skipped)
    folder = Path(arguments.out or f"runs/{recipe.name}")
    test_batches = EvalBatches(held_out, recipe.training.batch_size, arguments.eval_images)
    _, history = train(recipe, images, test_batches, folder, arguments.seed, arguments.resume)
    speed = history.images_per_second(recipe.training.batch_size)
    print(
        f"test MSE {history.tests[-1]['test_mse']:.4f} after {recipe.training.steps} steps, {speed:.0f} images a second"
    )
    print(f"model: {folder / 'model'}")


def compare_arguments(words: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    add_data_arguments(parser)
    parser.add_argument("--recipes", nargs="+", type=str, default=[], help="names or YAML files of recipes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="each recipe is trained once with each")
    parser.add_argument(
        "--first_seed_only", nargs="+", type=str, default=[], help="more recipes, trained with the first seed alone"
    )
    parser.add_class_arguments(Plan, skip={"recipes", "seeds", "first_seed_only"})
    parser.add_argument("--out", type=str, default="runs/compare", help="folder to write")
    return parser


def run_compare(arguments: Namespace, words: Sequence[str]) -> None:
    plan = Plan(**{key: arguments[key] for key in Plan.__dataclass_fields__})
    from hybridvq.compare import compare
    from hybridvq.report import print_table, write_report

    out = Path(arguments.out)
    result = compare(plan, data_settings(arguments), out, shlex.join(["hybridvq", *words]))
    list_skipped(result["skipped"])
    page = write_report(out)
    print_table(result)
    print(f"report: {page}")


def evaluate_arguments(words: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    add_model_argument(parser)
    add_data_arguments(parser)
    parser.add_argument("--limit", type=int | None, default=None, help="measure only the first so many images")
    parser.add_argument("--json", type=str, default="", help="also write the numbers to this file")
    return parser


def run_evaluate(arguments: Namespace, words: Sequence[str]) -> None:
    from rich import print_json

    from hybridvq.data import EvalBatches, open_images
    from hybridvq.evaluation import default_device, evaluate
    from hybridvq.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(arguments.model).to(default_device())
    data = data_settings(arguments)
    images = open_images(data.data, "test", size=data.size, skip_unreadable=data.skip_unreadable, limit=arguments.limit)
    list_skipped(images.skipped)
    result = evaluate(tokenizer, EvalBatches(images, EVAL_BATCH))
    result |= {"model": arguments.model, "data": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    print_json(data={key: value for key, value in result.items() if key != "usage"})


def reconstruct_arguments(words: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    add_model_argument(parser)
    parser.add_argument("images", type=str, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=str, default="reconstructions", help="folder to write PNG files to")
    parser.add_argument("--skip_unreadable", action="store_true", help="leave out images that cannot be read")
    return parser


def run_reconstruct(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.evaluation import default_device
    from hybridvq.files import reconstruct_files
    from hybridvq.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(arguments.model).to(default_device())
    skipped: list[str] = []
    done = reconstruct_files(
        tokenizer, arguments.images, Path(arguments.out), skipped if arguments.skip_unreadable else None
    )
    for file in done:
        print(f"{file.source}: {file.psnr_db:.2f} dB at {file.rate_bpp:.3f} bits a pixel -> {file.written}")
    list_skipped(skipped)


def add_model_argument(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="a folder that `hybridvq train` wrote, or a hub id")


def add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_class_arguments(DataSettings)


def data_settings(arguments: Namespace) -> DataSettings:
    return DataSettings(**{key: arguments[key] for key in DataSettings.__dataclass_fields__})


def list_skipped(skipped: Sequence[str]) -> None:
    if skipped:
        print(f"left out {len(skipped)} unreadable images:", *skipped, sep="\n  ", file=sys.stderr)


COMMANDS: dict[str, tuple[Any, Any, str]] = {
    "train": (train_arguments, run_train, "Train one recipe on images."),
    "evaluate": (evaluate_arguments, run_evaluate, "Measure a trained tokenizer on held-out images."),
    "reconstruct": (reconstruct_arguments, run_reconstruct, "Send images through tokens and back."),
    "compare": (compare_arguments, run_compare, "Train recipes on the same images and report the difference."),
}

if __name__ == "__main__":
    sys.exit(main())
