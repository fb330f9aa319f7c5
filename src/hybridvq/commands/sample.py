"""`hybridvq sample`."""

from collections.abc import Sequence
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_device_argument, checked_out, settings_of
from hybridvq.printing import say
from hybridvq.saved import label_numbers, model_folder, prior_folder, read_prior_config
from hybridvq.settings import SamplingSettings

SUMMARY = "Make new images with a prior, or continue a given one."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("prior", type=str, help="a folder that `hybridvq train-prior` wrote, or cifar10-prior")
    parser.add_argument("-o", "--out", type=str, default="samples", help="folder to write grid.png and single files to")
    parser.add_argument("--count", type=int, default=16, help="images, of each label if there are some")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    parser.add_argument("--labels", nargs="+", type=str, default=[], help="classes, by name or number, or all")
    parser.add_class_arguments(SamplingSettings)
    parser.add_argument(
        "--shape", nargs=2, type=int, default=None, help="rows and columns of positions; if not given, as trained"
    )
    parser.add_argument("--complete", type=str | None, default=None, help="a picture to continue")
    parser.add_argument(
        "--keep",
        type=Literal["top", "left"] | float,
        default="top",
        help="what is kept of that picture: its top or left half, or a share of it in reading order, such as 0.5",
    )
    parser.add_argument(
        "--model", type=str | None, default=None, help="a tokenizer to decode with, instead of the prior's own copy"
    )
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.paths import files_in

    out, folder = checked_out(arguments.out), prior_folder(arguments.prior)
    label_numbers(arguments.labels, read_prior_config(folder), arguments.prior)
    if arguments.model:
        model_folder(arguments.model)
    if arguments.complete:
        files_in([arguments.complete], (), "image")
    from hybridvq.generation import sample

    named = {key: arguments[key] for key in ("labels", "complete", "keep", "model", "seed", "device")}
    shape = tuple(arguments.shape) if arguments.shape else None
    settings = settings_of(SamplingSettings, arguments)
    images = sample(arguments.prior, arguments.count, out, settings=settings, shape=shape, **named)
    say(f"{len(images)} images, seed {arguments.seed}: {out / 'grid.png'}")
