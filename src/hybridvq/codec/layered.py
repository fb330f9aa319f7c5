"""Version 2 of the container `.hvq`: codes, and then coefficients in streams that a file may end after.

LayeredHeader, codes, [coefficients] ──write──► bytes ──read──► LayeredHeader, codes, [those that are whole]

docs/format.md draws it byte by byte. A checksum follows the codes and each stream of coefficients, and covers
everything before it, so that a file that was cut off still opens with what is whole.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hybridvq.codec import format
from hybridvq.codec.format import MODEL_BYTES, NIBBLE, TABLES_BYTES, Cursor, Header, Part, varint
from hybridvq.codec.scales import COARSER, step_of
from hybridvq.codec.tables import CONTEXTUAL, Tables
from hybridvq.errors import CodecError
from hybridvq.ranges import Range

VERSION = 2
CODES_CHECKSUM_BYTES, CHECKSUM_BYTES = 8, 4
MAX_STREAMS = 2**8


@dataclass(frozen=True)
class LayeredHeader:
    """All that is known of an image before its streams are decoded.

    Attributes:
        model, tables, height, width, factor, mode, color: as in `Header`.
        step: the byte of the step, see `scales.step_of`.
        sizes: the bytes of the codes and of each stream of coefficients, in a whole file.
    """

    model: bytes
    tables: bytes
    height: int
    width: int
    factor: int
    step: int
    mode: int = CONTEXTUAL
    color: int = 0
    sizes: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(h, w): the positions that cover the image."""
        return -(-self.height // self.factor), -(-self.width // self.factor)

    @property
    def codes(self) -> Header:
        """The header of the codes by themselves, which stand on a coarser grid."""
        place = (self.model, self.tables, self.height, self.width, self.factor * COARSER)
        return Header(*place, codebook_size=1, levels=None, mode=self.mode, color=self.color)


def layered_header(
    tables: Tables, height: int, width: int, factor: int, step: int, *, mode: int = CONTEXTUAL, color: int = 0
) -> LayeredHeader:
    """The header of an image of height x width pixels whose tokens `tables` codes, yet without sizes."""
    return LayeredHeader(*format.ids_of(tables), height, width, factor, step, mode, color)


def write(header: LayeredHeader, streams: Sequence[bytes]) -> bytes:
    """The file of an image: `streams` are its codes and then each stream of coefficients.

    Raises:
        CodecError: a field has no such value.
    """
    check_fields(replace(header, sizes=tuple(map(len, streams))), format.MAX_SIDE**2, "this image")
    return seal(header, streams)


def seal(header: LayeredHeader, streams: Sequence[bytes]) -> bytes:
    """A header and streams with the checksums that they ask for, whatever they say."""
    data = b"".join(pack(replace(header, sizes=tuple(map(len, streams)))))
    for number, stream in enumerate(streams):
        data += stream
        data += checksum(data, number)
    return data


def read(
    data: bytes, name: str = "this file", max_pixels: int = format.MAX_PIXELS
) -> tuple[LayeredHeader, bytes, list[bytes]]:
    """The header, the codes and the streams of coefficients of a file, those that are there whole.

    Raises:
        CodecError, ConfigError: as `format.read`; a file that is cut off after its codes is one that is read.
    """
    Range(1, format.MAX_SIDE**2).check("max_pixels", max_pixels)
    header, at = parse(data, name)
    streams: list[bytes] = []
    for number, size in enumerate(header.sizes):
        end = at + size + checksum_bytes(number)
        if end > len(data):
            break
        if checksum(data[: at + size], number) != data[at + size : end]:
            raise CodecError(f"{name} is damaged: its checksum does not match; get another copy of it")
        streams.append(data[at : at + size])
        at = end
    if not streams:
        raise CodecError(f"{name} is cut off within its codes, and shows nothing without them; get a whole copy of it")
    if len(streams) == len(header.sizes) and at != len(data):
        raise CodecError(f"{name} is damaged: {len(data) - at} bytes follow its end; get another copy of it")
    check_fields(header, max_pixels, name)
    return header, streams[0], streams[1:]


def truncate(data: bytes, streams: int, name: str = "this file") -> bytes:
    """The beginning of a file, with its codes and its first `streams` streams of coefficients.

    Raises:
        CodecError: as `read`, or the file has fewer.
    """
    header, _, there = read(data, name, format.MAX_SIDE**2)
    if not 0 <= streams <= len(there):
        raise CodecError(f"{name} has {len(there)} streams of coefficients, of which {streams} cannot be kept")
    end = sum(size + checksum_bytes(number) for number, size in enumerate(header.sizes[: streams + 1]))
    return data[: sum(map(len, pack(header))) + end]


def describe(data: bytes, name: str = "this file", max_pixels: int = format.MAX_PIXELS) -> list[Part]:
    """The parts of a file, in order; their sizes sum to the file's.

    Raises:
        CodecError: as `read`.
    """
    header, codes, streams = read(data, name, max_pixels)
    (h, w), (coarse_h, coarse_w), packed = header.size, header.codes.grid, pack(header)
    said = (
        ("magic and version", f"{format.MAGIC.decode()} {VERSION}"),
        ("model", header.model.hex()),
        ("tables", header.tables.hex()),
        ("coding", f"{format.MODES[header.mode]} tables, {header.factor}x{header.factor} pixels per position"),
        ("color", f"{header.color}"),
        ("step", f"{step_of(header.step):.3g}"),
        ("size", f"{header.width}x{header.height} pixels, {w}x{h} positions"),
        ("stream lengths", f"{len(streams)} of {len(header.sizes) - 1} streams of coefficients"),
    )
    parts = [Part(what, len(field), value) for (what, value), field in zip(said, packed, strict=True)]
    for number, stream in enumerate([codes, *streams]):
        what = f"coefficients {number - 1}" if number else "codes"
        parts.append(Part(what, len(stream), "" if number else f"{coarse_w}x{coarse_h} positions"))
        parts.append(Part("checksum", checksum_bytes(number)))
    if rest := len(data) - sum(part.size for part in parts):
        parts.append(Part("cut off", rest, "not read"))
    return parts


def pack(header: LayeredHeader) -> list[bytes]:
    """The header's parts as bytes."""
    return [
        format.MAGIC + bytes([VERSION]),
        header.model,
        header.tables,
        bytes([header.mode << 4 | header.factor.bit_length() - 1]),
        bytes([header.color]),
        bytes([header.step]),
        varint(header.height) + varint(header.width),
        b"".join(map(varint, (len(header.sizes) - 1, *header.sizes))),
    ]


def parse(data: bytes, name: str) -> tuple[LayeredHeader, int]:
    """The header and where the codes start, none of it verified."""
    cursor = Cursor(data, name)
    cursor.take(len(format.MAGIC) + 1)
    model, tables = cursor.take(MODEL_BYTES), cursor.take(TABLES_BYTES)
    coding, color, step = cursor.take(3)
    height, width, streams = (cursor.varint() for _ in range(3))
    sizes = tuple(cursor.varint() for _ in range(min(streams, MAX_STREAMS) + 1))
    factor, mode = 1 << (coding & NIBBLE), coding >> 4
    return LayeredHeader(model, tables, height, width, factor, step, mode, color, sizes), cursor.at


def check_fields(header: LayeredHeader, max_pixels: int, name: str) -> None:
    """Raise CodecError unless every field has a value that can be, and the image is no larger than is believed."""
    if not 1 <= len(header.sizes) <= MAX_STREAMS or not 0 <= header.step <= 255:
        raise CodecError(f"{name} has {len(header.sizes)} streams, which no .hvq file of this format can have")
    format.check_fields(header.codes, None, max_pixels, name)


def check_model(header: LayeredHeader, tables: Tables, name: str = "this file") -> None:
    """Raise CodecError unless a file was made with `tables`, and so with their model."""
    format.check_ids(header, tables, name)
    scales = tables.scales
    if scales is None or len(header.sizes) != scales.groups + 1:
        raise CodecError(f"{name} contradicts the model that it names; it was not made by hybridvq")
    h, w = header.codes.grid
    size = header.sizes[0]
    least, most = format.stream_bounds(h * w * tables.stages, [tables.codebook_size])
    if not least <= size <= most:
        raise CodecError(f"{name} has codes of {size} bytes for {w}x{h} positions, which no image needs")


def checksum(body: bytes, number: int) -> bytes:
    """What follows the codes, number 0, or a stream of coefficients: the start of the SHA-256 of all before."""
    return hashlib.sha256(body).digest()[: checksum_bytes(number)]


def checksum_bytes(number: int) -> int:
    return CHECKSUM_BYTES if number else CODES_CHECKSUM_BYTES
