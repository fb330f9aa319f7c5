"""`hybridvq decompress`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    CODEC_MODEL,
    add_device_argument,
    add_model_argument,
    checked_out,
    progress,
)
from hybridvq.errors import ConfigError
from hybridvq.printing import say
from hybridvq.saved import model_folder

SUMMARY = "Turn .hvq files back into images."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words, CODEC_MODEL)
    parser.add_argument("files", type=str, nargs="+", help=".hvq files, or folders of them")
    parser.add_argument("-o", "--out", type=str, default="decompressed", help="folder to write to, or one .png file")
    parser.add_argument(
        "--max_pixels",
        type=int | None,
        default=None,
        help="the largest image that a file's header is believed to hold; 2^28 if not given",
    )
    add_device_argument(parser)
    parser.add_argument("--preview", action="store_true", help="of a hybrid model, read the codes alone")
    parser.add_argument(
        "--draw",
        action="store_true",
        help="of a hybrid model, draw at random what a file lacks or --preview leaves out, from what the codes predict",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what --draw draws")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="what --draw draws is multiplied by it; 0 draws the mean"
    )


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.paths import files_in, places

    out = checked_out(arguments.out, ".png")
    model, files = model_folder(arguments.model), places(files_in(arguments.files, {".hvq"}, ".hvq"), out, ".png")
    from hybridvq.codec import Codec
    from hybridvq.codec.files import decompress_file
    from hybridvq.codec.hybrid import Draw

    how = Draw(arguments.seed, arguments.temperature)
    if how != Draw() and not arguments.draw:
        raise ConfigError("--seed and --temperature are of what is drawn; give --draw with them")
    draw = how if arguments.draw else None
    codec = Codec.load(model, arguments.device)
    for source, written in progress(files.items(), "decompressing"):
        file = decompress_file(codec, source, written, arguments.max_pixels, arguments.preview, draw)
        say(f"{source}: {file.width}x{file.height} pixels -> {written}")
