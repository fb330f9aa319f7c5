"""`hybridvq export`."""

from collections.abc import Sequence
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_model_argument

SUMMARY = "Write a trained tokenizer as files that run without hybridvq."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    parser.add_argument(
        "--format",
        type=Literal["onnx"],
        default="onnx",
        help="of the files (needs pip install 'hybridvq[export]')",
    )
    parser.add_argument("--out", type=str, default="exported", help="new folder to write")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.export import export_onnx

    about = export_onnx(arguments.model, arguments.out)
    for name, ends in about["files"].items():
        inputs, outputs = (", ".join(map(written, ends[side])) for side in ("inputs", "outputs"))
        print(f"{name}: {inputs} -> {outputs}")
    print(f"export: {arguments.out}")


def written(end: dict) -> str:
    """An input or output as a reader writes it, such as x float32 (batch, 3, 4*h, 4*w)."""
    return f"{end['name']} {end['dtype']} ({', '.join(map(str, end['shape']))})"
