"""`hybridvq sample`."""

import math
from collections.abc import Sequence
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_device_argument, checked_out, settings_of
from hybridvq.errors import ConfigError
from hybridvq.printing import say
from hybridvq.settings import SamplingSettings

SUMMARY = "Make new images with a prior, or continue a given one."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("prior", type=str, help="a folder that `hybridvq train-prior` wrote, or photos-f8-prior")
    parser.add_argument("--out", type=str, default="samples", help="folder to write grid.png and single files to")
    parser.add_argument("--count", type=int, default=16, help="images, of each label if there are some")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images")
    parser.add_argument("--labels", nargs="+", type=str, default=[], help="classes, by name or number")
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
    if arguments.count < 1:
        raise ConfigError(f"--count is {arguments.count}; it must be at least 1")
    if not 0 <= arguments.seed < 2**63:
        raise ConfigError(f"--seed is {arguments.seed}; it must lie between 0 and {2**63 - 1}")
    out = checked_out(arguments.out)
    import torch

    from hybridvq.generation import (
        continue_picture,
        file_names,
        generate,
        label_numbers,
        picture_grid,
        show_kept,
        write_images,
    )
    from hybridvq.priors import load_prior, tokenizer_of_prior
    from hybridvq.tokenizer import load_tokenizer

    device, count = arguments.device, arguments.count
    model = arguments.model or tokenizer_of_prior(arguments.prior)
    prior, tokenizer = load_prior(arguments.prior, model, device=device), load_tokenizer(model, device=device)
    h, w = arguments.shape or prior.shape
    prior.check_shape((h, w))
    classes: list[int | None] = [*label_numbers(arguments.labels, arguments.prior)] or [None]
    given = continue_picture(arguments.complete, arguments.keep, tokenizer, (h, w)) if arguments.complete else None
    settings = settings_of(SamplingSettings, arguments)
    labels = [label for label in classes for _ in range(count)]
    images = generate(prior, tokenizer, labels, (h, w), settings, arguments.seed, given)
    shown = torch.cat([show_kept(given, tokenizer), images]) if given else images
    columns = count if len(classes) > 1 else math.ceil(math.sqrt(len(shown)))
    write_images(images, file_names(labels, count), picture_grid(shown, columns), out)
    say(f"{len(images)} images, seed {arguments.seed}: {out / 'grid.png'}")
