"""Image files to `.hvq` files and back."""

from dataclasses import dataclass
from pathlib import Path

from hybridvq.codec.hybrid import Draw
from hybridvq.codec.image import Codec
from hybridvq.data import open_image
from hybridvq.files import save, save_png
from hybridvq.settings import CodecSettings


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


def decompress_file(
    codec: Codec,
    source: Path,
    written: Path,
    max_pixels: int | None,
    preview: bool = False,
    draw: Draw | None = None,
) -> DecompressedFile:
    """Decompress one file to PNG; `max_pixels`, `preview` and `draw` as in `Codec.decompress`.

    Raises:
        CodecError: it is no whole file of this codec.
        OSError: it cannot be read.
        ConfigError: the image cannot be written.
    """
    image = codec.decompress(source.read_bytes(), str(source), max_pixels, preview=preview, draw=draw)
    save_png(image, written)
    return DecompressedFile(source, written, image.height, image.width)
