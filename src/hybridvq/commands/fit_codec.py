"""`hybridvq fit-codec`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    add_data_and_size_arguments,
    add_model_argument,
    data_of_the_model,
    list_skipped,
)
from hybridvq.errors import ConfigError
from hybridvq.printing import say

if TYPE_CHECKING:
    from hybridvq.codec import TokenCoder
    from hybridvq.codec.fit import Batch
    from hybridvq.data import Images
    from hybridvq.tokenizer import Tokenizer

SUMMARY = "Fit the tables that a model's tokens are compressed with, on training images."
PIXELS = 64 * 128**2  # of images encoded together
TEST_IMAGES = 16


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    add_data_and_size_arguments(parser, ["skip_unreadable"])
    parser.add_argument("--images", type=int, default=2048, help="how many training images are read, at most")
    parser.add_argument("--steps", type=int, default=2000, help="of gradient descent on the contextual tables")
    parser.add_argument("--seed", type=int, default=0, help="of their first weights")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    for name in ("images", "steps"):
        if arguments[name] < 1:
            raise ConfigError(f"{name} is {arguments[name]}; it must be at least 1")
    from hybridvq.codec import CONTEXTUAL, STATIC, TokenCoder, fit_tables
    from hybridvq.codec.fit import check_codable
    from hybridvq.codec.tables import FILE
    from hybridvq.data import open_images
    from hybridvq.tokenizer import load_tokenizer, model_folder, weight_hash

    folder = model_folder(arguments.model)
    tokenizer = load_tokenizer(folder)
    check_codable(tokenizer.quantizer)
    data = data_of_the_model(arguments)
    tokenizer.check_size(data.size)
    skip = data.skip_unreadable
    train = open_images(data.data, "train", size=data.size, skip_unreadable=skip, limit=arguments.images)
    test = open_images(data.data, "test", size=data.size, skip_unreadable=skip, limit=TEST_IMAGES)
    list_skipped([*train.skipped, *test.skipped])
    tables = fit_tables(
        batches_of_tokens(tokenizer, train),
        tokenizer,
        weight_hash(folder),
        steps=arguments.steps,
        seed=arguments.seed,
    )
    tables.save(folder)
    held_out = list(batches_of_tokens(tokenizer, test))
    for name, mode in (("static", STATIC), ("contextual", CONTEXTUAL)):
        say(f"{name} tables: {bits_a_position(TokenCoder(tables, mode), held_out):.2f} bits a position")
    say(f"measured on {len(test)} held-out images; tables: {folder / FILE}")


def batches_of_tokens(tokenizer: "Tokenizer", images: "Images") -> "Iterator[Batch]":
    """The codes and levels of all images, some at a time."""
    import torch

    from hybridvq.data import EvalBatches

    batches = EvalBatches(images, max(1, PIXELS // images.size**2))
    for number in range(len(batches)):
        with torch.inference_mode():
            tokens = tokenizer.encode(batches[number])
        assert tokens.codes is not None
        yield tokens.codes.numpy(), None if tokens.gains is None else tokens.gains.numpy()


def bits_a_position(coder: "TokenCoder", batches: "Sequence[Batch]") -> float:
    """Mean over all positions of what their stages cost."""
    bits = positions = 0.0
    for codes, levels in batches:
        for image in range(len(codes)):
            bits += coder.cost_bits(codes[image], None if levels is None else levels[image]).sum()
            positions += codes[image, 0].size
    return bits / positions
