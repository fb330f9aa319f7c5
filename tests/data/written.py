"""Image files written byte by byte, as Pillow does not write them."""

import struct
import zlib

Chunk = tuple[bytes, bytes]


def png(
    width: int, height: int, depth: int, color: int, rows: bytes, *chunks: Chunk, after: tuple[Chunk, ...] = ()
) -> bytes:
    """A PNG of bits `depth` and PNG's color type, with `chunks` before its rows and some after them."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, parts))


def chunk(part: Chunk) -> bytes:
    kind, data = part
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def gray_tiff(bits: int, photometric: int, data: bytes, width: int) -> bytes:
    """One row of a grayscale TIFF, uncompressed."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1)]
    tags += [(279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    pixels = data + b"\0" * (len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def ico(image: bytes) -> bytes:
    """An icon of the size that its header has, 16x16, around a file of any size."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(image), 22) + image


def icns(image: bytes) -> bytes:
    """As `ico`, for a Macintosh, of 1024x1024."""
    return b"icns" + struct.pack(">I", 16 + len(image)) + b"ic10" + struct.pack(">I", 8 + len(image)) + image
