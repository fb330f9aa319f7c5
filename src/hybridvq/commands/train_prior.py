"""`hybridvq train-prior`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from hybridvq.commands.parser import add_short_names
from hybridvq.errors import ConfigError, DataError
from hybridvq.launch import find_processes
from hybridvq.printing import say
from hybridvq.saved import check_begun, model_folder
from hybridvq.settings import DataSettings, PriorSettings

if TYPE_CHECKING:
    from hybridvq.bulk import TokenSet

SUMMARY = "Train a prior over a tokenizer's tokens, to make new images."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words)
    add_data_and_size_arguments(parser, ["skip_unreadable"])
    parser.add_argument(
        "--tokens",
        type=str | None,
        default=None,
        help="folder with the tokens of both splits, in train and test, as `hybridvq tokenize` writes each; if not "
        "given, they are made of --data and kept in --out",
    )
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="learn the mirror image of each image too; with --tokens, from the folder mirrored there",
    )
    parser.add_class_arguments(PriorSettings, skip={"conditional"})
    add_short_names(parser, words)
    parser.add_argument(
        "--conditional", action="store_true", help="learn each class of images, so that one can be named"
    )
    add_run_arguments(parser, "runs/prior", "the weights and the order of the tokens")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    check_eval_images(arguments)
    settings, out = settings_of(PriorSettings, arguments), checked_out(arguments.out)
    check_begun(out, arguments.resume)
    processes = find_processes(arguments.devices, arguments.num_nodes)
    if processes.world_size > 1 and not arguments.tokens:
        raise ConfigError(
            "several processes cannot make the tokens at once; make them with `hybridvq tokenize`, one folder for each "
            "split, and give --tokens"
        )
    data = None if arguments.tokens else data_of_the_model(arguments)
    model_folder(arguments.model)
    if arguments.tokens and not Path(arguments.tokens).is_dir():
        raise DataError(f"there is no folder {arguments.tokens}; --tokens is one that holds train and test")
    from hybridvq.training.prior import fit_prior, open_tokens

    tokens = make_from_images(arguments, data) if data else open_tokens(Path(arguments.tokens), arguments.mirror)
    train_tokens, test_tokens, *mirrored = tokens
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
        mirrored=next(iter(mirrored), None),
    )
    if processes.rank == 0:
        best = min(history.tests, key=lambda test: test["bits"])
        early = ", where it stopped improving" if history.stopped else ""
        say(f"{best['bits']:.3f} held-out bits per position after {best['step']} steps{early}")
        if history.reported:
            count, bits = history.reported["images"], history.reported["bits"]
            say(f"{bits:.3f} on {count:,} other held-out images, which had no say in that")
        say(f"prior: {out / 'model'}")


def make_from_images(arguments: Namespace, data: DataSettings) -> list["TokenSet"]:
    """Make the tokens of --data, or what is missing of them."""
    from hybridvq.data import Images, Split, open_side
    from hybridvq.training.prior import make_tokens

    def open_listed(split: Split) -> Images:
        images = open_side(data, split)
        list_skipped(images.skipped)
        return images

    return make_tokens(arguments.model, open_listed, Path(arguments.out), arguments.mirror, device=arguments.device)
