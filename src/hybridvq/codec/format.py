"""The container `.hvq`: a header, a stream of bytes for each stage, a checksum. docs/format.md draws it byte by byte.

Header, [stream] ──write──► bytes ──read──► Header, [stream]

A file may come from a stranger. `read` holds nothing but slices of it, verifies the checksum before it believes a
field, and every field before anybody allocates by it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hybridvq.codec.coder import FLUSH_BYTES
from hybridvq.codec.integers import least_bits
from hybridvq.codec.tables import CONTEXTUAL, Tables
from hybridvq.errors import CodecError
from hybridvq.ranges import Range

MAGIC = b"HVQ"
VERSION, NEWEST = 1, 2  # of what is here, and in layered.py
MODEL_BYTES, TABLES_BYTES, CHECKSUM_BYTES = 8, 4, 8
MODES = ("static", "contextual")
MAX_SIDE = 2**32 - 1
MAX_PIXELS = 2**28
MAX_CODES, MAX_LEVELS, MAX_STAGES = 2**16, 2**8, 2**8
MAX_FACTOR_LOG2 = 15
NIBBLE = 15
SYMBOL_BYTES = 3  # the coder's probabilities are multiples of 2^-24, so that no symbol costs more
FREE_WAVES, WAVE_PIXELS = 2**14, 2**12  # wavefronts of any image, and pixels that allow one more


class Identified(Protocol):
    """The header of any version."""

    @property
    def model(self) -> bytes: ...

    @property
    def tables(self) -> bytes: ...


@dataclass(frozen=True)
class Header:
    """All that is known of an image before its streams are decoded.

    Attributes:
        model: the first 8 bytes of the SHA-256 of the tokenizer's weights.
        tables: the first 4 bytes of the digest of the tables, see `Tables.digest`.
        height, width: of the image, in pixels.
        factor: f, pixels of a position along a side, a power of two.
        codebook_size: K.
        levels: L, or None where the tokens have no gains.
        stages: S of the model; the file may hold fewer.
        mode: STATIC or CONTEXTUAL, which of the tables the streams were coded with.
        color: what became of the image's colors before it was encoded, 0 to 15; see `image.COLOR` and `image.GRAY`.
    """

    model: bytes
    tables: bytes
    height: int
    width: int
    factor: int
    codebook_size: int
    levels: int | None
    stages: int = 1
    mode: int = CONTEXTUAL
    color: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): the positions that cover the image."""
        return -(-self.height // self.factor), -(-self.width // self.factor)

    @property
    def waves(self) -> int:
        """How many wavefronts contextual tables code the grid in, one after the other; 0 for static ones."""
        h, w = self.grid
        return w + min(w, 2) * (h - 1) if self.mode == CONTEXTUAL else 0


def header_of(
    tables: Tables, height: int, width: int, factor: int, *, mode: int = CONTEXTUAL, color: int = 0
) -> Header:
    """The header of an image of height x width pixels whose tokens `tables` codes; for the rest see `Header`."""
    return Header(
        *ids_of(tables),
        height,
        width,
        factor,
        tables.codebook_size,
        tables.levels,
        tables.stages,
        mode,
        color,
    )


def check_model(header: Header, tables: Tables, name: str = "this file") -> None:
    """Raise CodecError unless a file was made with `tables`, and so with their model."""
    check_ids(header, tables, name)
    if (header.codebook_size, header.levels, header.stages) != (tables.codebook_size, tables.levels, tables.stages):
        raise CodecError(f"{name} contradicts the model that it names; it was not made by hybridvq")


def check_ids(header: Identified, tables: Tables, name: str) -> None:
    """Raise CodecError unless a file of any version names `tables` and their model."""
    model, digest = ids_of(tables)
    if header.model != model:
        raise CodecError(
            f"{name} was made by the model {header.model.hex()}, and this one is {model.hex()} (the SHA-256 of its "
            "weights); give the model that made it"
        )
    if header.tables != digest:
        raise CodecError(
            f"{name} was made with the tables {header.tables.hex()} of this model, and these are {digest.hex()}; give "
            "the codec.safetensors that it was made with"
        )


def ids_of(tables: Tables) -> tuple[bytes, bytes]:
    """How a file names a model and its tables."""
    return bytes.fromhex(tables.model)[:MODEL_BYTES], tables.digest[:TABLES_BYTES]


@dataclass(frozen=True)
class Part:
    """A run of bytes of a file: what it is, how long it is, and what it says in words."""

    name: str
    size: int
    value: str = ""


def write(header: Header, streams: Sequence[bytes]) -> bytes:
    """The file of an image, its streams being those of its first len(streams) stages.

    Raises:
        CodecError: a field has no such value.
    """
    check_fields(header, [len(stream) for stream in streams], MAX_SIDE**2, "this image")
    sizes = b"".join(varint(len(stream)) for stream in streams)
    body = b"".join([*(pack(header, len(streams))), sizes, *streams])
    return body + checksum(body)


def read(data: bytes, name: str = "this file", max_pixels: int = MAX_PIXELS) -> tuple[Header, list[bytes]]:
    """The header and the streams of a file, after every check that needs no model.

    Args:
        data: the whole file.
        name: what errors call it.
        max_pixels: the largest image that is believed; memory and time of decoding are in proportion to its pixels.
            With contextual tables time is also in proportion to the wavefronts; `most_waves` are believed.

    Raises:
        CodecError: it is no `.hvq` file, of a newer format, cut short, damaged, contradicts itself, or is too large.
        ConfigError: `max_pixels` is no whole number of at least 1.
    """
    Range(1, MAX_SIDE**2).check("max_pixels", max_pixels)
    header, sizes, start = parse(data, name)
    end = start + sum(sizes)
    if len(data) < end + CHECKSUM_BYTES:
        raise CodecError(
            f"{name} is cut off: {len(data)} of {end + CHECKSUM_BYTES} bytes are there; get a whole copy of it"
        )
    if len(data) > end + CHECKSUM_BYTES or checksum(data[:end]) != data[end:]:
        raise CodecError(f"{name} is damaged: its checksum does not match; get another copy of it")
    if step := header.color >> 4:
        raise CodecError(
            f"{name} was written with gain_step {step}, which this version no longer reads; open it with the version "
            "that wrote it, or compress its image again"
        )
    check_fields(header, sizes, max_pixels, name)
    streams = []
    for size in sizes:
        streams.append(data[start : start + size])
        start += size
    return header, streams


def truncate(data: bytes, stages: int, name: str = "this file") -> bytes:
    """The same file with its first `stages` stages alone.

    Raises:
        CodecError: as `read`, or the file has fewer stages.
    """
    header, streams = read(data, name, MAX_SIDE**2)
    if not 1 <= stages <= len(streams):
        raise CodecError(f"{name} has {len(streams)} stages, of which {stages} cannot be kept; use 1 to {len(streams)}")
    return write(header, streams[:stages])


def describe(data: bytes, name: str = "this file", max_pixels: int = MAX_PIXELS) -> list[Part]:
    """The parts of a file, in order; their sizes sum to the file's.

    Raises:
        CodecError: as `read`.
    """
    header, streams = read(data, name, max_pixels)
    fields = [len(field) for field in pack(header, len(streams))]
    gains = f", L = {header.levels}" if header.levels else ", no gains"
    (h, w), sizes = header.grid, sum(len(varint(len(stream))) for stream in streams)
    return [
        Part("magic and version", fields[0], f"{MAGIC.decode()} {VERSION}"),
        Part("model", fields[1], header.model.hex()),
        Part("tables", fields[2], header.tables.hex()),
        Part("coding", fields[3], f"{MODES[header.mode]} tables, {header.factor}x{header.factor} pixels per position"),
        Part("color", fields[4], f"{header.color}"),
        Part("size", fields[5], f"{header.width}x{header.height} pixels, {w}x{h} positions"),
        Part("tokens", fields[6], f"K = {header.codebook_size}{gains}, {len(streams)} of {header.stages} stages"),
        Part("stream lengths", sizes),
        *(Part(f"stage {s}", len(stream)) for s, stream in enumerate(streams)),
        Part("checksum", CHECKSUM_BYTES, data[-CHECKSUM_BYTES:].hex()),
    ]


def pack(header: Header, present: int) -> list[bytes]:
    """The header's parts as bytes, up to the lengths of its streams."""
    return [
        MAGIC + bytes([VERSION]),
        header.model,
        header.tables,
        bytes([header.mode << 4 | header.factor.bit_length() - 1]),
        bytes([header.color]),
        varint(header.height) + varint(header.width),
        b"".join(map(varint, (header.codebook_size, header.levels or 0, header.stages, present))),
    ]


def version_of(data: bytes, name: str = "this file") -> int:
    """The version of a file's format, 1 or 2; raises CodecError where it is no `.hvq` file, or has another."""
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise CodecError(f"{name} is not an .hvq file; give one that `hybridvq compress` wrote")
    cursor = Cursor(data, name)
    cursor.take(len(MAGIC))
    (version,) = cursor.take(1)
    if version > NEWEST:
        raise CodecError(f"{name} has format {version} and this version reads up to {NEWEST}; update hybridvq")
    if version == 0:
        raise CodecError(f"{name} is damaged: there is no format 0; get another copy of it")
    return version


def parse(data: bytes, name: str) -> tuple[Header, list[int], int]:
    """The header, the lengths of the streams and where the first one starts, none of it verified."""
    if version_of(data, name) != VERSION:
        raise CodecError(f"{name} was made by a hybrid model; give the model that made it")
    cursor = Cursor(data, name)
    cursor.take(len(MAGIC) + 1)
    model, tables = cursor.take(MODEL_BYTES), cursor.take(TABLES_BYTES)
    coding, color = cursor.take(2)
    height, width, codebook_size, levels, stages, present = (cursor.varint() for _ in range(6))
    sizes = [cursor.varint() for _ in range(min(present, MAX_STAGES + 1))]
    header = Header(
        model,
        tables,
        height,
        width,
        factor=1 << (coding & NIBBLE),
        codebook_size=codebook_size,
        levels=levels or None,
        stages=stages,
        mode=coding >> 4,
        color=color,
    )
    return header, sizes, cursor.at


def check_fields(header: Header, sizes: Sequence[int] | None, max_pixels: int, name: str) -> None:
    """Raise CodecError unless every field has a value that can be, alone and beside the others; `sizes` if given."""
    f, levels = header.factor, header.levels
    wrong = [
        (len(header.model) != MODEL_BYTES or len(header.tables) != TABLES_BYTES, "hashes of another length"),
        (not 1 <= header.height <= MAX_SIDE or not 1 <= header.width <= MAX_SIDE, "an impossible size"),
        (f < 1 or f & (f - 1) or f.bit_length() - 1 > MAX_FACTOR_LOG2, f"positions of {f} pixels"),
        (not 1 <= header.codebook_size <= MAX_CODES, f"a codebook of {header.codebook_size}"),
        (levels is not None and not 2 <= levels <= MAX_LEVELS, f"{levels} gain levels"),
        (not 1 <= header.stages <= MAX_STAGES, f"{header.stages} stages"),
        (sizes is not None and not 1 <= len(sizes) <= header.stages, f"streams of other than {header.stages} stages"),
        (header.mode not in range(len(MODES)), f"tables of the unknown kind {header.mode}"),
        (not 0 <= header.color <= NIBBLE, f"the color policy {header.color}"),
    ]
    for is_wrong, what in wrong:
        if is_wrong:
            raise CodecError(f"{name} has {what}, which no .hvq file of this format can have")
    pixels = header.height * header.width
    if pixels > max_pixels:
        raise CodecError(
            f"{name} claims {header.width}x{header.height} pixels, more than the {max_pixels} that are allowed; if you "
            "trust it, raise max_pixels"
        )
    h, w = header.grid
    if header.waves > most_waves(max_pixels):
        raise CodecError(
            f"{name} claims a long and thin image of {header.waves} wavefronts, more than the {most_waves(max_pixels)} "
            "that are allowed; if you trust it, raise max_pixels"
        )
    symbols = [n for n in (header.codebook_size, levels or 1) if n > 1]
    least, most = stream_bounds(h * w, symbols)
    for size in sizes or ():
        if not least <= size <= most:
            raise CodecError(f"{name} has a stream of {size} bytes for {w}x{h} positions, which no image needs")


def stream_bounds(positions: int, symbols: Sequence[int]) -> tuple[float, int]:
    """The fewest and the most bytes of a stream that has at each position one of each number of symbols."""
    least = positions * sum(map(least_bits, symbols)) / 8 - FLUSH_BYTES
    return least, positions * len(symbols) * SYMBOL_BYTES + FLUSH_BYTES


def most_waves(max_pixels: int) -> int:
    """The wavefronts that are believed, 2^14 + max_pixels / 2^12: enough for all but long and thin images."""
    return FREE_WAVES + max_pixels // WAVE_PIXELS


def checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:CHECKSUM_BYTES]


def varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first, the top bit set in all but the last."""
    groups = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


class Cursor:
    """A place in a file that moves on as it is read."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes; raises CodecError where the file ends before."""
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise CodecError(f"{self.name} is cut off within its header; get a whole copy of it")
        self.at += count
        return taken

    def varint(self) -> int:
        """The next number; raises CodecError where it is cut off, longer than 9 bytes, or not as short as can be."""
        value = 0
        for shift in range(0, 63, 7):
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return value
        raise CodecError(f"{self.name} is damaged: a number in its header is not written as it should be")
