"""The command line: parse, build, call. Heavy imports wait until a command runs."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from hybridvq._version import __version__
from hybridvq.arguments import (
    add_data_and_size_arguments,
    add_data_arguments,
    add_flags,
    add_model_argument,
    data_of_the_model,
    data_settings,
    list_skipped,
    new_parser,
    open_test_side,
    open_train_side,
    underscored,
)
from hybridvq.errors import ConfigError, DataError, HybridVQError, LostProcessError
from hybridvq.launch import find_processes, is_first
from hybridvq.recipe import add_recipe_arguments, load_recipe, plain, recipe_names
from hybridvq.settings import Plan, Recipe
from hybridvq.writing import write_whole

EVAL_BATCH = 64
EXAMPLES = """examples:
  hybridvq compare --recipes vector projected --steps 500      compare two quantizers on sample photographs
  hybridvq train --recipe vector --data my/photos --size 64    train a tokenizer on your own images
  hybridvq evaluate runs/vector --data my/photos               measure it on held-out images
  hybridvq reconstruct runs/vector cat.jpg --out out           send an image through tokens and back
  hybridvq tokenize runs/vector --data my/photos --out tokens  write the tokens of a data set to parquet files

`hybridvq COMMAND --help` lists a command's options, which may be written with dashes or underscores.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 2 after one sentence on what went wrong, or 130 after Ctrl-C."""
    words = [underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    try:
        parser = build_parser(words)
        if not words:
            parser.print_help(sys.stderr)
            return 2
        arguments = parser.instantiate(parser.parse_args(words))
        command = arguments.subcommand
        COMMANDS[command][1](arguments[command], words)
    except ArgumentError as error:
        help_of = " ".join(["hybridvq", *words[:1]]) if words[0] in COMMANDS else "hybridvq"
        return complain(f"{plain(error)}; see `{help_of} --help`")
    except HybridVQError as error:
        # The first of several processes speaks for all, but for what one can meet alone.
        return complain(str(error)) if is_first() or isinstance(error, DataError | LostProcessError) else 2
    except OSError as error:
        return complain(f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error})")
    except KeyboardInterrupt as error:
        if is_first():
            complain(str(error) or "interrupted")
        return 130
    return 0


def complain(sentence: str) -> int:
    print(f"hybridvq: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def build_parser(words: Sequence[str]) -> ArgumentParser:
    """The whole command line; `words` are looked at for --recipe, whose values are the defaults shown by --help."""
    parser = new_parser(
        prog="hybridvq",
        description="Train, measure and compare image tokenizers with discrete, continuous and mixed latents.",
        epilog=EXAMPLES,
        version=__version__,
    )
    commands = parser.add_subcommands(title="commands", description="", metavar="COMMAND")
    for name, (add_arguments, _, summary) in COMMANDS.items():
        command = new_parser(description=summary)
        if words[:1] == [name]:
            add_arguments(command, words)
        commands.add_subcommand(name, command, help=summary)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def add_train_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--recipe", default="vector")
    defaults = load_recipe(peek.parse_known_args(list(words))[0].recipe)
    names = ", ".join(recipe_names())
    parser.add_argument("--recipe", type=str, default="vector", help=f"what to train: a YAML file, or one of {names}")
    add_data_arguments(parser)
    parser.add_argument("--out", type=str, default=f"runs/{defaults.name}", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order of the images and their crops")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out, if there is one"
    )
    parser.add_argument(
        "--devices",
        type=int | Literal["auto"] | None,
        default=None,
        help="processes on this machine, one a GPU where there are some, or auto for all GPUs; if not given, as many "
        "as torchrun or SLURM started, or 1",
    )
    parser.add_argument(
        "--num_nodes",
        type=int | None,
        default=None,
        help="machines that train together; if not given, as many as torchrun or SLURM use, or 1",
    )
    parser.add_argument("--eval_images", type=int, default=2048, help="held-out images measured during the training")
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
    parser.set_defaults(recipe_keys(defaults))


def recipe_keys(recipe: Recipe) -> dict[str, Any]:
    """What a recipe's YAML file says."""
    return {key: value for key, value in asdict(recipe).items() if key != "name"}


def run_train(arguments: Namespace, words: Sequence[str]) -> None:
    name = Path(arguments.recipe).stem if Path(arguments.recipe).is_file() else arguments.recipe
    recipe = Recipe(**{key: arguments[key] for key in recipe_keys(Recipe())}, name=name)
    if arguments.print_recipe:
        print(yaml.safe_dump(recipe_keys(recipe), sort_keys=False, allow_unicode=True), end="")
        return
    if arguments.eval_images < 1:
        raise ConfigError(f"--eval-images is {arguments.eval_images}; it must be at least 1")
    data = data_settings(arguments)
    from hybridvq.data import EvalBatches
    from hybridvq.training import train

    first = find_processes(arguments.devices, arguments.num_nodes).rank == 0
    images = open_train_side(data)
    held_out = open_test_side(data, arguments.eval_images if data.stream else None)
    if first:
        list_skipped(images.skipped + held_out.skipped)
    folder = Path(arguments.out)
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
    )
    if data.stream:
        list_skipped(images.skipped)
    if not first:
        return
    speed = history.images_per_second(recipe.training.batch_size)
    print(
        f"test MSE {history.tests[-1]['test_mse']:.4f} after {recipe.training.steps} steps, {speed:.0f} images a second"
    )
    print(f"model: {folder / 'model'}")


def add_compare_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
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
    parser.add_argument("--out", type=str, default="runs/compare", help="folder to write; a second call goes on there")


def run_compare(arguments: Namespace, words: Sequence[str]) -> None:
    plan = Plan(**{key: arguments[key] for key in Plan.__dataclass_fields__})
    if find_processes().world_size > 1:
        raise ConfigError("compare trains on one device; start it without torchrun or srun, and --jobs runs at a time")
    from hybridvq.compare import compare
    from hybridvq.report import print_table, write_report

    out = Path(arguments.out)
    result = compare(plan, data_settings(arguments), out, shlex.join(["hybridvq", *words]))
    list_skipped(result["skipped"])
    page = write_report(out)
    print_table(result)
    print(f"report: {page}")


def add_evaluate_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    add_data_and_size_arguments(parser, ["skip_unreadable", "stream"])
    parser.add_argument(
        "--limit",
        type=int | None,
        default=None,
        help="measure only so many images, evenly spread, or the first so many of a stream",
    )
    parser.add_argument("--json", type=str | None, default=None, help="file for the numbers and each code's usage")


def run_evaluate(arguments: Namespace, words: Sequence[str]) -> None:
    from rich import print_json

    from hybridvq.data import EvalBatches
    from hybridvq.evaluation import default_device, evaluate
    from hybridvq.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(arguments.model).to(default_device())
    data = data_of_the_model(arguments)
    tokenizer.check_size(data.size)
    if data.stream and arguments.limit is None:
        raise ConfigError("a stream is measured on the first of its held-out images; say how many: --limit 2048")
    images = open_test_side(data, arguments.limit)
    list_skipped(images.skipped)
    result = evaluate(tokenizer, EvalBatches(images, EVAL_BATCH))
    result |= {"model": arguments.model, "data": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    result["size"] = data.size
    print_json(data={key: value for key, value in result.items() if key != "usage"})
    if arguments.json:
        write_whole(Path(arguments.json), (json.dumps(result, indent=1) + "\n").encode())


def add_reconstruct_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    parser.add_argument("images", type=str, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=str, default="reconstructions", help="folder to write PNG files to")
    add_flags(parser, ["skip_unreadable"])


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


def add_tokenize_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    add_data_and_size_arguments(parser, ["skip_unreadable"])
    parser.add_argument("--split", type=Literal["train", "test"], default="train", help="which images of the data")
    parser.add_argument(
        "--out", type=str, default="tokens", help="folder to write; a second call makes what is missing"
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="how many make shards at a time; if not given, one for each core, or for each GPU where there is one",
    )
    parser.add_argument("--shard_images", type=int, default=2048, help="images in each parquet file")
    parser.add_argument("--batch_size", type=int, default=EVAL_BATCH, help="images encoded together")
    parser.add_argument(
        "--engine",
        type=Literal["local", "ray"],
        default="local",
        help="processes of this machine, or Ray, for a cluster (pip install 'hybridvq[ray]')",
    )
    parser.add_argument(
        "--address",
        type=str | None,
        default=None,
        help="of a Ray cluster; if not given, the one RAY_ADDRESS names, or a Ray on this machine for this call",
    )


def run_tokenize(arguments: Namespace, words: Sequence[str]) -> None:
    if arguments.address and arguments.engine != "ray":
        raise ConfigError("--address is of a Ray cluster; add --engine ray")
    from hybridvq.bulk import tokenize
    from hybridvq.data import open_images
    from hybridvq.tokenizer import model_folder

    model_folder(arguments.model)  # a wrong name shows before the images are read
    data = data_of_the_model(arguments)
    # Workers of a cluster start in folders of their own.
    source = str(Path(data.data).absolute()) if Path(data.data).exists() else data.data
    images = open_images(source, arguments.split, size=data.size, skip_unreadable=data.skip_unreadable)
    list_skipped(images.skipped)
    options = {key: arguments[key] for key in ("workers", "shard_images", "batch_size", "engine", "address")}
    done = tokenize(arguments.model, images, arguments.out, **options)
    print(
        f"{done.images} images in {done.shards} shards, {done.made} of them made now, "
        f"{done.bytes / done.images:.0f} bytes an image"
    )
    print(f"tokens: {arguments.out}")


Command = tuple[Callable[[ArgumentParser, Sequence[str]], None], Callable[[Namespace, Sequence[str]], None], str]
COMMANDS: dict[str, Command] = {
    "train": (add_train_arguments, run_train, "Train one recipe on images."),
    "evaluate": (add_evaluate_arguments, run_evaluate, "Measure a trained tokenizer on held-out images."),
    "reconstruct": (add_reconstruct_arguments, run_reconstruct, "Send images through tokens and back."),
    "tokenize": (add_tokenize_arguments, run_tokenize, "Write the tokens of a data set to parquet files."),
    "compare": (add_compare_arguments, run_compare, "Train recipes on the same images and report the difference."),
}

if __name__ == "__main__":
    sys.exit(main())
