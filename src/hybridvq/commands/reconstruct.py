"""`hybridvq reconstruct`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_device_argument, add_flags, add_model_argument, checked_out, list_skipped
from hybridvq.printing import say
from hybridvq.saved import model_folder

SUMMARY = "Send images through tokens and back."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words)
    parser.add_argument("images", type=str, nargs="+", help="image files, folders of them, or photos")
    parser.add_argument(
        "-o", "--out", type=str, default="reconstructions", help="folder to write PNG files to, or one .png file"
    )
    parser.add_argument(
        "--quality",
        type=float | None,
        default=None,
        help="of a hybrid model, 1 to 100; if not given, the model's own step",
    )
    add_flags(parser, ["skip_unreadable"])
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.paths import image_files, places

    out = checked_out(arguments.out, ".png")
    model, _ = model_folder(arguments.model), places(image_files(arguments.images), out, ".png")
    from hybridvq.files import reconstruct_files
    from hybridvq.quantizers import step_of_quality
    from hybridvq.tokenizer import load_tokenizer

    step = None if arguments.quality is None else step_of_quality(arguments.quality)
    tokenizer = load_tokenizer(model, device=arguments.device)
    skipped: list[str] = []
    done = reconstruct_files(tokenizer, arguments.images, out, skipped if arguments.skip_unreadable else None, step)
    for file in done:
        say(f"{file.source}: {file.psnr_db:.2f} dB at {file.rate_bpp:.3f} bits per pixel -> {file.written}")
    list_skipped(skipped)
