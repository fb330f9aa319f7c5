"""`hybridvq tokenize`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    EVAL_BATCH,
    add_data_and_size_arguments,
    add_device_argument,
    add_model_argument,
    checked_out,
    data_of_the_model,
    list_skipped,
)
from hybridvq.errors import ConfigError
from hybridvq.printing import say

SUMMARY = "Write the tokens of a data set to parquet files."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words)
    add_data_and_size_arguments(parser, ["skip_unreadable"])
    parser.add_argument("--split", type=Literal["train", "test"], default="train", help="which images of the data")
    parser.add_argument("--mirror", action="store_true", help="mirror each image left to right before")
    parser.add_argument(
        "--codes_alone", action="store_true", help="of a hybrid model, keep the codes without coefficients"
    )
    parser.add_argument(
        "-o", "--out", type=str, default="tokens", help="folder to write; a second call makes what is missing"
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
        help="processes of this machine, or Ray, for a cluster (needs the extra ray)",
    )
    parser.add_argument(
        "--address",
        type=str | None,
        default=None,
        help="of a Ray cluster; if not given, the one RAY_ADDRESS names, or a Ray on this machine for this call",
    )
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    if arguments.address and arguments.engine != "ray":
        raise ConfigError("--address is of a Ray cluster; add --engine ray")
    out = checked_out(arguments.out)
    data = data_of_the_model(arguments)
    from hybridvq.bulk import tokenize
    from hybridvq.data import open_side

    # Workers of a cluster start in folders of their own.
    source = str(Path(data.data).absolute()) if Path(data.data).exists() else data.data
    images = open_side(replace(data, data=source), arguments.split)
    list_skipped(images.skipped)
    options = ("mirror", "codes_alone", "device", "workers", "shard_images", "batch_size", "engine", "address")
    done = tokenize(arguments.model, images, out, **{key: arguments[key] for key in options})
    say(
        f"{done.images} images in {done.shards} shards, {done.made} of them made now, "
        f"{done.bytes / done.images:.0f} bytes per image"
    )
    say(f"tokens: {arguments.out}")
