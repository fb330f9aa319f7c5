"""`hybridvq evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    EVAL_BATCH,
    add_data_and_size_arguments,
    add_device_argument,
    add_model_argument,
    data_of_the_model,
    list_skipped,
    open_test_side,
)
from hybridvq.documents import to_json
from hybridvq.errors import ConfigError
from hybridvq.printing import say
from hybridvq.ranges import COUNT
from hybridvq.saved import is_unfinished
from hybridvq.writing import write_whole

if TYPE_CHECKING:
    from hybridvq.tokenizer import Tokenizer

CURVE = ("rate_bpp", "test_mse", "test_psnr_db", "test_ssim")
STDOUT = "-"
FEW = 100  # images, below which the numbers of other images may be quite different
SUMMARY = "Measure a trained tokenizer on held-out images."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words)
    add_data_and_size_arguments(parser, ["skip_unreadable", "stream"])
    parser.add_argument(
        "--limit",
        type=int | None,
        default=None,
        help="measure only so many images, evenly spread, or the first so many of a stream",
    )
    parser.add_argument(
        "--quantization_steps",
        type=list[float] | None,
        default=None,
        help="of a hybrid model, also measure the rate and the error at each of these steps, such as [0.5,1,2]",
    )
    parser.add_argument(
        "--json",
        type=str | None,
        nargs="?",
        const=STDOUT,
        default=None,
        help="print the numbers and each code's usage as JSON instead of a table, or write them to this file beside it",
    )
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    to_stdout = arguments.json == STDOUT
    if arguments.json and Path(arguments.json).is_dir():
        raise ConfigError(f"--json is {arguments.json}, which is a folder; give a file")
    if arguments.limit is not None:
        COUNT.check("--limit", arguments.limit)
    unfinished = is_unfinished(Path(arguments.model))
    data = data_of_the_model(arguments, unfinished)
    if data.stream and arguments.limit is None:
        raise ConfigError("a stream is measured on the first of its held-out images; say how many: --limit 2048")
    from hybridvq.data import EvalBatches
    from hybridvq.evaluation import evaluate
    from hybridvq.tokenizer import load_tokenizer

    load = load_interrupted if unfinished else load_tokenizer
    tokenizer = load(arguments.model, device=arguments.device)
    tokenizer.check_size(data.size)
    images = open_test_side(data, arguments.limit)
    list_skipped(images.skipped)
    batches = EvalBatches(images, EVAL_BATCH)
    result = evaluate(tokenizer, batches)
    if arguments.quantization_steps:
        curve = [(step, evaluate(tokenizer, batches, step=step)) for step in arguments.quantization_steps]
        result["steps"] = [{"step": step} | {key: found[key] for key in CURVE} for step, found in curve]
    result |= {"model": arguments.model, "data": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    result["size"] = data.size
    if to_stdout:
        print(to_json(result).decode(), end="")
    else:
        print_table(result)
    if len(images) < FEW:
        say(f"{len(images)} images are few; others may give quite different numbers", error=True)
    if arguments.json and not to_stdout:
        write_whole(Path(arguments.json), to_json(result))


def load_interrupted(model: str, device: str) -> "Tokenizer":
    """The tokenizer of the last checkpoint of a run that is not finished."""
    from hybridvq.devices import find_device
    from hybridvq.training.run import load_checkpoint

    tokenizer, step = load_checkpoint(Path(model))
    say(f"{model} is not finished: this is its checkpoint after {step:,} steps; --resume continues it", error=True)
    return tokenizer.to(find_device(device))


def print_table(result: dict[str, Any]) -> None:
    """Print what was measured, a number a line, and then the rate and the error at each step, if there are some."""
    size = f"{result['size']}x{result['size']}"
    say(f"{result['model']} on {result['images']:,} held-out images of {result['data']}, {size} pixels")
    lines = table_lines(result)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        say(f"  {name:{width}}  {value}")
    for at in result.get("steps", []):
        say(
            f"  step {at['step']:<6g} {at['rate_bpp']:.3f} bits per pixel, MSE {at['test_mse']:.5f}, "
            f"{at['test_psnr_db']:.2f} dB, SSIM {at['test_ssim']:.4f}"
        )


def table_lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The names and values of a table."""
    both = "{:.4g} raw, {:.4g} entropy".format
    lines = [
        ("mean squared error, pixels from -1 to 1", f"{result['test_mse']:.5f}"),
        ("PSNR", f"{result['test_psnr_db']:.2f} dB"),
        ("SSIM", f"{result['test_ssim']:.4f}"),
        ("bits per position", both(result["bits_per_position"], result["entropy_bits_per_position"])),
        ("bits per pixel", both(result["rate_bpp"], result["entropy_rate_bpp"])),
    ]
    if result["codebook_size"]:
        used, size = result["codes_used"], result["codebook_size"]
        lines.append(("codes used", f"{used:,} of {size:,}, perplexity {result['perplexity']:.1f}"))
    if gains := result["gains"]:
        spread = "mean {mean:.3g}, standard deviation {std:.3g}, from {min:.3g} to {max:.3g}".format(**gains)
        lines.append(("gains", spread))
    return lines
