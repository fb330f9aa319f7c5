"""`hybridvq export`."""

from collections.abc import Sequence
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_device_argument, add_model_argument, checked_out
from hybridvq.printing import say
from hybridvq.saved import model_folder
from hybridvq.writing import check_new

SUMMARY = "Write a trained model as files that run without hybridvq, or in half precision."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words)
    parser.add_argument(
        "--format",
        type=Literal["onnx", "half"],
        default="onnx",
        help="onnx: two files that run without hybridvq (needs the extra export); half: a model folder with weights "
        "in half precision",
    )
    parser.add_argument("-o", "--out", type=str, default="exported", help="new folder to write")
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    out, model = checked_out(arguments.out), model_folder(arguments.model)
    check_new(out)
    if arguments.format == "half":
        from hybridvq.half import save_half

        weights = save_half(model, out)
        say(f"{weights}: {weights.stat().st_size / 1e6:.2f} MB")
        return
    from hybridvq.export import export_onnx

    about = export_onnx(model, out, arguments.device)
    for name, ends in about["files"].items():
        inputs, outputs = (", ".join(map(written, ends[side])) for side in ("inputs", "outputs"))
        say(f"{name}: {inputs} -> {outputs}")
    say(f"export: {arguments.out}")


def written(end: dict) -> str:
    """An input or output as a reader writes it, such as x float32 (batch, 3, 4*h, 4*w)."""
    return f"{end['name']} {end['dtype']} ({', '.join(map(str, end['shape']))})"
