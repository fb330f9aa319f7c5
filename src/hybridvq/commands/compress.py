"""`hybridvq compress`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    add_codec_argument,
    add_device_argument,
    add_flags,
    checked_out,
    list_skipped,
    progress,
    settings_of,
)
from hybridvq.errors import DataError
from hybridvq.printing import say
from hybridvq.settings import CodecSettings

SUMMARY = "Compress images to .hvq files."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("images", type=str, nargs="+", help="image files, folders of them, or photos")
    add_codec_argument(parser)
    parser.add_argument("-o", "--out", type=str, default="compressed", help="folder to write to, or one .hvq file")
    parser.add_class_arguments(CodecSettings)
    add_flags(parser, ["skip_unreadable"])
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    settings, out = settings_of(CodecSettings, arguments), checked_out(arguments.out, ".hvq")
    from hybridvq.codec import Codec
    from hybridvq.codec.files import compress_file, to_compress

    files = to_compress(arguments.images, out)
    codec = Codec.load(arguments.model, arguments.device)
    skipped: list[str] = []
    for source, written in progress(files.items(), "compressing"):
        try:
            file = compress_file(codec, source, written, settings)
        except DataError as error:
            if not arguments.skip_unreadable:
                raise
            skipped.append(str(error))
            continue
        say(f"{source}: {file.size:,} bytes, {file.rate_bpp:.3f} bits per pixel -> {written}")
    list_skipped(skipped)
