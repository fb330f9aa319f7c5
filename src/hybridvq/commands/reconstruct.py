"""`hybridvq reconstruct`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_flags, add_model_argument, checked_out, list_skipped
from hybridvq.printing import say

SUMMARY = "Send images through tokens and back."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser)
    parser.add_argument("images", type=str, nargs="+", help="image files, folders of them, or photos")
    parser.add_argument(
        "--out", type=str, default="reconstructions", help="folder to write PNG files to, or one .png file"
    )
    add_flags(parser, ["skip_unreadable"])


def run(arguments: Namespace, words: Sequence[str]) -> None:
    out = checked_out(arguments.out, ".png")
    from hybridvq.evaluation import default_device
    from hybridvq.files import reconstruct_files
    from hybridvq.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(arguments.model).to(default_device())
    skipped: list[str] = []
    done = reconstruct_files(tokenizer, arguments.images, out, skipped if arguments.skip_unreadable else None)
    for file in done:
        say(f"{file.source}: {file.psnr_db:.2f} dB at {file.rate_bpp:.3f} bits a pixel -> {file.written}")
    list_skipped(skipped)
