"""`hybridvq compress`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import (
    CODEC_MODEL,
    add_device_argument,
    add_flags,
    add_model_argument,
    checked_out,
    list_skipped,
    progress,
    settings_of,
)
from hybridvq.errors import DataError
from hybridvq.printing import say
from hybridvq.saved import model_folder
from hybridvq.settings import CodecSettings

SUMMARY = "Compress images to .hvq files."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words, CODEC_MODEL)
    parser.add_argument("images", type=str, nargs="+", help="image files, folders of them, or photos")
    parser.add_argument("-o", "--out", type=str, default="compressed", help="folder to write to, or one .hvq file")
    parser.add_class_arguments(CodecSettings)
    add_flags(parser, ["skip_unreadable"])
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.paths import image_files, places

    settings, out = settings_of(CodecSettings, arguments), checked_out(arguments.out, ".hvq")
    model, files = model_folder(arguments.model), places(image_files(arguments.images), out, ".hvq")
    from hybridvq.codec import Codec
    from hybridvq.codec.files import compress_file

    codec = Codec.load(model, arguments.device)
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
