"""Image files to `.hvq` files and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridvq.codec.image import Codec
from hybridvq.data import open_image
from hybridvq.files import files_in, image_files, places, save, save_png
from hybridvq.settings import CodecSettings

ENDING, DECOMPRESSED = ".hvq", ".png"


@dataclass(frozen=True)
class CompressedFile:
    """One image and its file: where it was written, how many bytes, and those as bits per pixel of the image."""

    source: Path
    written: Path
    size: int
    rate_bpp: float


@dataclass(frozen=True)
class DecompressedFile:
    """One file and its image: where it was written, and its size in pixels."""

    source: Path
    written: Path
    height: int
    width: int


def to_compress(sources: Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """The images of `sources`, files or folders of them, each with the `.hvq` file that it becomes.

    Raises:
        DataError: a source does not exist, or holds no image.
        ConfigError: two would be written to one file, or one over a file that is read.
    """
    return places(image_files(sources), out, ENDING)


def to_decompress(sources: Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """The `.hvq` files of `sources`, files or folders of them, each with the PNG file that it becomes.

    Raises:
        DataError: a source does not exist, or holds none.
        ConfigError: two would be written to one file, or one over a file that is read.
    """
    return places(files_in(sources, {ENDING}, ENDING), out, DECOMPRESSED)


def compress_file(codec: Codec, source: Path, written: Path, settings: CodecSettings) -> CompressedFile:
    """Compress one image file.

    Raises:
        DataError: the image cannot be read.
        ConfigError: the settings cannot be used, or the file cannot be written.
    """
    image = open_image(source)
    data = codec.compress(image, settings)
    save(data, written)
    return CompressedFile(source, written, len(data), 8 * len(data) / (image.width * image.height))


def decompress_file(codec: Codec, source: Path, written: Path, max_pixels: int | None) -> DecompressedFile:
    """Decompress one file to PNG; `max_pixels` as in `Codec.decompress`.

    Raises:
        CodecError: it is no whole file of this codec.
        OSError: it cannot be read.
        ConfigError: the image cannot be written.
    """
    image = codec.decompress(source.read_bytes(), str(source), max_pixels)
    save_png(image, written)
    return DecompressedFile(source, written, image.height, image.width)
