"""`hybridvq train-prior`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    add_data_and_size_arguments,
    add_model_argument,
    add_run_arguments,
    check_eval_images,
    checked_out,
    data_of_the_model,
    list_skipped,
    settings_of,
)
from hybridvq.errors import ConfigError
from hybridvq.launch import find_processes
from hybridvq.printing import say
from hybridvq.settings import PriorSettings

if TYPE_CHECKING:
    from hybridvq.bulk import TokenSet

SUMMARY = "Train a prior over a tokenizer's tokens, to make new images."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    add_data_and_size_arguments(parser, ["skip_unreadable"])
    parser.add_argument(
        "--tokens",
        type=str | None,
        default=None,
        help="folder with the tokens of both splits, in train and test, as `hybridvq tokenize` writes each; if not "
        "given, they are made of --data and kept in --out",
    )
    parser.add_class_arguments(PriorSettings, skip={"conditional"})
    parser.add_argument(
        "--conditional", action="store_true", help="learn each class of images, so that one can be named"
    )
    add_run_arguments(parser, "runs/prior", "the weights and the order of the tokens")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    check_eval_images(arguments)
    settings, out = settings_of(PriorSettings, arguments), checked_out(arguments.out)
    processes = find_processes(arguments.devices, arguments.num_nodes)
    if processes.world_size > 1 and not arguments.tokens:
        raise ConfigError(
            "several processes cannot make the tokens at once; make them with `hybridvq tokenize`, one folder for each "
            "split, and give --tokens"
        )
    from hybridvq.training import fit_prior

    train_tokens, test_tokens = read_tokens(arguments) if arguments.tokens else make_tokens(arguments)
    _, history = fit_prior(
        settings,
        arguments.model,
        train_tokens,
        test_tokens,
        out,
        arguments.seed,
        arguments.resume,
        eval_images=arguments.eval_images,
        devices=arguments.devices,
        num_nodes=arguments.num_nodes,
        device=arguments.device,
    )
    if processes.rank == 0:
        best = min(history.tests, key=lambda test: test["bits"])
        early = ", where it stopped improving" if history.stopped else ""
        say(f"{best['bits']:.3f} held-out bits per position after {best['step']} steps{early}")
        say(f"prior: {out / 'model'}")


def read_tokens(arguments: Namespace) -> tuple["TokenSet", "TokenSet"]:
    from hybridvq.bulk import load_tokens

    folder = Path(arguments.tokens)
    return load_tokens(folder / "train"), load_tokens(folder / "test")


def make_tokens(arguments: Namespace) -> tuple["TokenSet", "TokenSet"]:
    """Make the tokens of both splits, or what is missing of them."""
    from hybridvq.bulk import load_tokens, tokenize
    from hybridvq.data import open_side
    from hybridvq.tokenizer import model_folder

    model_folder(arguments.model)  # a wrong name shows before the images are read
    data = data_of_the_model(arguments)

    def make(split: Literal["train", "test"]) -> "TokenSet":
        images = open_side(data, split)
        list_skipped(images.skipped)
        folder = Path(arguments.out) / "tokens" / split
        tokenize(arguments.model, images, folder, device=arguments.device)
        return load_tokens(folder)

    return make("train"), make("test")
