"""Coefficients to bytes and back, class by class.

r (C,h,w), hidden (h/4,w/4,H), step ──encode_group──► stream ──decode_group──► r

Channels come eight at a time. All their coefficients of one class have the same probabilities, so they are coded
together, in row-major order, from the lowest coded class up; then those that were escaped. Those of classes below are 0
and not coded.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from constriction import stream as streaming

from hybridvq.codec.coder import Reader, Writer, foreign_stream
from hybridvq.codec.scales import ESCAPE, MOST, ScaleTables

LARGEST = 2**15 - 1  # of |r|, int16
LENGTHS = 16  # bits that an escaped number may have: it is coded as their count, and then themselves
COUNT_BITS = 4
BLOCK = 8  # channels whose coefficients are coded together; part of the format


class Coefficients(Protocol):
    """Where an encoder has its coefficients from."""

    size: tuple[int, int]

    def __call__(self, channels: np.ndarray, classes: np.ndarray, /) -> np.ndarray:
        """The coefficients (C, h, w) int16 of some channels, 0 where their class is not coded."""


def blocks(tables: ScaleTables, group: int) -> Iterator[np.ndarray]:
    """The channels of a stream, BLOCK at a time."""
    channels = tables.channels(group)
    for start in range(0, len(channels), BLOCK):
        yield channels[start : start + BLOCK]


def encode_group(tables: ScaleTables, hidden: np.ndarray, byte: int, group: int, coefficients: Coefficients) -> bytes:
    """The stream of a group; `coefficients` gives those of some channels (C, h, w) int16 with regard to their classes.

    Those of classes that are not coded are taken to be 0.
    """
    writer = Writer()
    for channels in blocks(tables, group):
        size = coefficients.size
        classes = tables.classes(tables.log_scales(hidden, channels, size), byte)
        encode_block(writer, coefficients(channels, classes), classes, tables)
    return writer.stream()


def decode_group(
    tables: ScaleTables, hidden: np.ndarray, byte: int, group: int, size: tuple[int, int], stream: bytes
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some channels (C,) and their coefficients (C, h, w) int16, until all of the group have come.

    Raises:
        CodecError: the stream is seen not to be one of these tables.
    """
    reader = Reader(stream)
    for channels in blocks(tables, group):
        classes = tables.classes(tables.log_scales(hidden, channels, size), byte)
        try:
            r = decode_block(reader, classes, tables)
        except AssertionError:
            raise foreign_stream() from None
        yield channels, r
    reader.close()


def encode_block(writer: Writer, r: np.ndarray, classes: np.ndarray, tables: ScaleTables) -> None:
    order, counts = by_class(classes.ravel(), int(tables.coded))
    values = r.ravel()[order]
    for row, part in runs_of(counts, tables):
        of_class = values[part]
        symbols = np.where(np.abs(of_class) > MOST, ESCAPE, of_class + MOST).astype(np.int32)
        writer.coder.encode(symbols, streaming.model.Categorical(row, perfect=False))
    escaped = values[np.abs(values) > MOST].astype(np.int32)
    if len(escaped):
        numbers = to_numbers(escaped)
        lengths = np.frexp(numbers)[1].astype(np.int32) - 1
        writer.coder.encode(lengths, streaming.model.Uniform(LENGTHS))
        long = lengths > 0
        writer.coder.encode((numbers - (1 << lengths))[long], streaming.model.Uniform(), 1 << lengths[long])


def decode_block(reader: Reader, classes: np.ndarray, tables: ScaleTables) -> np.ndarray:
    order, counts = by_class(classes.ravel(), int(tables.coded))
    values = np.empty(len(order), np.int16)
    for row, part in runs_of(counts, tables):
        model = streaming.model.Categorical(row, perfect=False)
        values[part] = reader.coder.decode(model, part.stop - part.start) - MOST
    escaped = np.flatnonzero(values > MOST)
    if len(escaped):
        lengths = reader.coder.decode(streaming.model.Uniform(LENGTHS), len(escaped))
        numbers, long = np.ones(len(escaped), np.int32), lengths > 0
        sizes = 1 << lengths[long]
        numbers[long] = sizes + reader.coder.decode(streaming.model.Uniform(), sizes)
        values[escaped] = from_numbers(numbers)
    r = np.zeros(classes.size, np.int16)
    r[order] = values
    return r.reshape(classes.shape)


def to_numbers(escaped: np.ndarray) -> np.ndarray:
    """Escaped coefficients as numbers from 1."""
    return 2 * (np.abs(escaped) - MOST - 1) + (escaped < 0) + 1


def from_numbers(numbers: np.ndarray) -> np.ndarray:
    """The escaped coefficients of their numbers from 1."""
    size = np.minimum((numbers - 1) // 2 + MOST + 1, LARGEST)
    return np.where((numbers - 1) % 2, -size, size)


def by_class(classes: np.ndarray, coded: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the coded classes (N,) are, the lowest first and each in order, and how many there are of each (64,)."""
    at = np.flatnonzero(classes >= coded).astype(np.int32 if classes.size < 2**31 else np.int64)
    of = classes[at]
    return at[np.argsort(of, kind="stable")], np.bincount(of, minlength=64)


def runs_of(counts: np.ndarray, tables: ScaleTables) -> Iterator[tuple[np.ndarray, slice]]:
    """The counts (128,) of each class that occurs, and where its coefficients are."""
    start = 0
    for k in np.flatnonzero(counts):
        yield tables.counts[k].astype(np.float32), slice(start, start + int(counts[k]))
        start += int(counts[k])


def thresholds(tables: ScaleTables, rate_weight: float) -> np.ndarray:
    """From where on a coefficient of each class is rounded to 0, ..., 63 steps and not to one less, (64, 64) float32.

    Where (v - n)^2 + rate_weight b(n) falls below the same of n - 1, with v the magnitude in steps and b the bits.
    """
    bits = tables.bits()[:, MOST : MOST + MOST + 1]
    middle = np.arange(1, MOST + 1) - 0.5
    limits = middle + rate_weight * np.diff(bits, axis=1) / 2
    limits = np.concatenate([np.zeros((len(bits), 1)), limits.clip(middle, middle + 0.5)], 1)
    limits[: int(tables.coded), 1:] = np.inf
    return limits.astype(np.float32)


def round_to_steps(v: np.ndarray, classes: np.ndarray, limits: np.ndarray, coded: int) -> np.ndarray:
    """Coefficients int16 of values v in steps, each the nearest or one nearer to 0, as `thresholds` say."""
    size = np.abs(v)
    nearest = np.minimum(np.rint(size), LARGEST)
    cut = limits.ravel()[classes.astype(np.int32) * (MOST + 1) + np.minimum(nearest, MOST).astype(np.int32)]
    nearest -= (size < cut) & (nearest > 0) & (nearest <= MOST)
    nearest[classes < coded] = 0
    return np.copysign(nearest, v).astype(np.int16)
