"""`hybridvq evaluate`."""

from collections.abc import Sequence
from pathlib import Path

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
from hybridvq.ranges import COUNT
from hybridvq.writing import write_whole

CURVE = ("rate_bpp", "test_mse", "test_psnr_db", "test_ssim")
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
    parser.add_argument("--json", type=str | None, default=None, help="file for the numbers and each code's usage")
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    if arguments.json and Path(arguments.json).is_dir():
        raise ConfigError(f"--json is {arguments.json}, which is a folder; give a file")
    if arguments.limit is not None:
        COUNT.check("--limit", arguments.limit)
    data = data_of_the_model(arguments)
    from rich import print_json

    from hybridvq.data import EvalBatches
    from hybridvq.evaluation import evaluate
    from hybridvq.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(arguments.model, device=arguments.device)
    tokenizer.check_size(data.size)
    if data.stream and arguments.limit is None:
        raise ConfigError("a stream is measured on the first of its held-out images; say how many: --limit 2048")
    images = open_test_side(data, arguments.limit)
    list_skipped(images.skipped)
    batches = EvalBatches(images, EVAL_BATCH)
    result = evaluate(tokenizer, batches)
    if arguments.quantization_steps:
        curve = [(step, evaluate(tokenizer, batches, step=step)) for step in arguments.quantization_steps]
        result["steps"] = [{"step": step} | {key: found[key] for key in CURVE} for step, found in curve]
    result |= {"model": arguments.model, "data": images.name, "fingerprint": images.fingerprint, "images": len(images)}
    result["size"] = data.size
    print_json(to_json({key: value for key, value in result.items() if key != "usage"}).decode(), ensure_ascii=True)
    if arguments.json:
        write_whole(Path(arguments.json), to_json(result))
