"""`hybridvq fit-codec`."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    add_data_and_size_arguments,
    add_device_argument,
    add_model_argument,
    data_of_the_model,
    list_skipped,
    progress,
)
from hybridvq.errors import ConfigError
from hybridvq.printing import say
from hybridvq.ranges import COUNT
from hybridvq.saved import CONFIG, WEIGHTS, model_folder
from hybridvq.writing import check_new, sole_writer, whole_folder, writable

if TYPE_CHECKING:
    from hybridvq.codec import Tables, TokenCoder
    from hybridvq.codec.fit import Batch
    from hybridvq.data import EvalBatches, Images
    from hybridvq.tokenizer import Tokenizer

SUMMARY = "Fit the tables that a model's tokens are compressed with, on training images."
PIXELS = 64 * 128**2  # of images encoded together
TEST_IMAGES = 16


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words)
    add_data_and_size_arguments(parser, ["skip_unreadable"])
    parser.add_argument("--images", type=int, default=2048, help="how many training images are read, at most")
    parser.add_argument("--steps", type=int, default=2000, help="of gradient descent on the contextual tables")
    parser.add_argument("--seed", type=int, default=0, help="of their first weights")
    parser.add_argument(
        "-o",
        "-o",
        "--out",
        type=str | None,
        default=None,
        help="new model folder to write, with a copy of the model; if not given, the tables go beside its own weights",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace tables that are there, whose files will not open any more"
    )
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    for name in ("images", "steps"):
        COUNT.check(name, arguments[name])
    from hybridvq.codec.tables import FILE

    folder = model_folder(arguments.model)
    out = folder if arguments.out is None else Path(arguments.out)
    if out is folder:
        check_own(folder, arguments.model)
        check_replaceable(folder / FILE, arguments.overwrite)
    else:
        check_new(out)
    data = data_of_the_model(arguments)
    from hybridvq.codec import CONTEXTUAL, STATIC, TokenCoder, fit_tables
    from hybridvq.codec.fit import check_codable
    from hybridvq.data import open_side
    from hybridvq.tokenizer import load_tokenizer, weight_hash

    tokenizer = load_tokenizer(folder, device=arguments.device)
    check_codable(tokenizer.quantizer)
    tokenizer.check_size(data.size)
    train, test = open_side(data, "train", arguments.images), open_side(data, "test", TEST_IMAGES)
    list_skipped([*train.skipped, *test.skipped])
    steps, seed = arguments.steps, arguments.seed
    if tokenizer.quantizer.counts_bits:
        from hybridvq.codec.fit_scales import fit_scales, samples_of

        samples = list(samples_of(tokenizer, in_batches(train), progress))
        scales = fit_scales(samples, tokenizer.quantizer, steps=steps, seed=seed, track=progress)
        tokens: Iterator[Batch] = ((codes.numpy(), None) for codes, _ in samples)
    else:
        scales, tokens = None, batches_of_tokens(tokenizer, train)
    tables = fit_tables(tokens, tokenizer, weight_hash(folder), steps=steps, seed=seed, track=progress)
    tables = replace(tables, scales=scales)
    if out is folder:
        with sole_writer(folder):
            tables.save(folder)
    else:
        save_copy(tables, folder, out)
    held_out = list(batches_of_tokens(tokenizer, test))
    for name, mode in (("static", STATIC), ("contextual", CONTEXTUAL)):
        say(f"{name} tables: {bits_per_position(TokenCoder(tables, mode), held_out):.2f} bits per position")
    say(f"measured on {len(test)} held-out images; tables: {out / FILE}")


def check_own(folder: Path, model: str) -> None:
    """Raise ConfigError where a model folder is not the user's: in the package, or in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    import hybridvq

    shared = (Path(hybridvq.__file__).parent.resolve(), Path(HF_HUB_CACHE).resolve())
    if not Path(model).is_dir() or any(folder.resolve().is_relative_to(place) for place in shared):
        raise ConfigError(f"{model} has tables that others read too; give a new folder as --out for tables of your own")


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Raise ConfigError where there are tables, unless they may be replaced; on a terminal, ask."""
    if overwrite or not path.exists():
        return
    known = f"{path} exists already, and files made with it will not open with other tables"
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{known}. Replace it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError(f"{known}; choose a new folder as --out, or add --overwrite")


def save_copy(tables: "Tables", folder: Path, out: Path) -> None:
    """Write `out`, a copy of a model folder with these tables, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with writable(out), whole_folder(out) as whole:
        tables.save(whole)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / name, whole / name)


def in_batches(images: "Images") -> "EvalBatches":
    """All images, some at a time."""
    from hybridvq.data import EvalBatches

    return EvalBatches(images, max(1, PIXELS // images.size**2))


def batches_of_tokens(tokenizer: "Tokenizer", images: "Images") -> "Iterator[Batch]":
    """The codes and levels of all images, some at a time."""
    import torch

    device, batches = next(tokenizer.parameters()).device, in_batches(images)
    for number in progress(range(len(batches)), "encoding images"):
        with torch.inference_mode():
            tokens = tokenizer.encode(batches[number].to(device))
        assert tokens.codes is not None
        yield tokens.codes.cpu().numpy(), None if tokens.gains is None else tokens.gains.cpu().numpy()


def bits_per_position(coder: "TokenCoder", batches: "Sequence[Batch]") -> float:
    """Mean over all positions of what their stages cost."""
    bits = positions = 0.0
    for codes, levels in batches:
        for image in range(len(codes)):
            bits += coder.cost_bits(codes[image], None if levels is None else levels[image]).sum()
            positions += codes[image, 0].size
    return bits / positions
