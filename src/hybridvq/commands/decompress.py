"""`hybridvq decompress`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_codec_argument, add_device_argument, checked_out, progress
from hybridvq.errors import ConfigError
from hybridvq.printing import say

SUMMARY = "Turn .hvq files back into images."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("files", type=str, nargs="+", help=".hvq files, or folders of them")
    add_codec_argument(parser)
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
    out = checked_out(arguments.out, ".png")
    from hybridvq.codec import Codec
    from hybridvq.codec.files import decompress_file, to_decompress
    from hybridvq.codec.hybrid import Draw

    how = Draw(arguments.seed, arguments.temperature)
    if how != Draw() and not arguments.draw:
        raise ConfigError("--seed and --temperature are of what is drawn; give --draw with them")
    draw = how if arguments.draw else None
    files = to_decompress(arguments.files, out)
    codec = Codec.load(arguments.model, arguments.device)
    for source, written in progress(files.items(), "decompressing"):
        file = decompress_file(codec, source, written, arguments.max_pixels, arguments.preview, draw)
        say(f"{source}: {file.height}x{file.width} pixels -> {written}")
