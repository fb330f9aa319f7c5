"""Token grids to bytes and back, by range coding with probabilities that are integers.

codes, levels (S,h,w) ──encode──► [stream of stage 0, stream of stage 1, ...] ──decode──► codes, levels

Encoder and decoder walk the grid in the same order and ask the same tables, so that they agree on every probability. An
integer that differed by one on another machine would turn all that follows into noise; see `exact_product` and `Port`
for why none can.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from constriction import stream as streaming

from hybridvq.codec.integers import SCALE
from hybridvq.codec.tables import (
    CONTEXTUAL,
    MARGIN,
    NEIGHBORS,
    STATIC,
    Tables,
    check_symbols,
)
from hybridvq.errors import CodecError

Positions = tuple[np.ndarray, np.ndarray]
"""(y, x) of some positions, (N,) each."""

WORD_BYTES = 4
FLUSH_BYTES = 8  # what the coder may add at the end of a stream, or leave out
COUNTS = 2**20  # of a piece, positions whose levels and then codes are coded together; part of the format
ROWS = streaming.model.Categorical(perfect=False)


class Port(Protocol):
    """Where symbols go to or come from, each with its row of counts (N, n) that sum to SCALE - n.

    constriction gives symbol i its range from (floor(f C_i) + i) / 2^24 to (floor(f C_{i+1}) + i + 1) / 2^24,
    where C_i is the sum of the counts before i and f = (2^24 - n) / C_n. With this sum f is 1, every C_i is an integer
    below 2^24, which float32 holds exactly, and the share is (count_i + 1) / 2^24: nothing is rounded.
    """

    def __call__(self, counts: np.ndarray, known: np.ndarray | None, /) -> np.ndarray:
        """Pass one symbol for each row and return them, (N,); `known` are the symbols, None when decoding."""


class Writer:
    """A port that encodes the known symbols."""

    def __init__(self) -> None:
        self.coder = streaming.queue.RangeEncoder()

    def __call__(self, counts: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        assert known is not None
        self.coder.encode(known.astype(np.int32), ROWS, np.ascontiguousarray(counts, np.float32))
        return known

    def stream(self) -> bytes:
        """The words, highest byte first, without zeros at the end of the last, which the reader supplies."""
        words = self.coder.get_compressed().astype(">u4").tobytes()
        return words[:-WORD_BYTES] + words[-WORD_BYTES:].rstrip(b"\0")


class Reader:
    """A port that decodes a stream.

    Raises:
        CodecError: the stream cannot be one of these tables.
    """

    def __init__(self, stream: bytes) -> None:
        padding = -len(stream) % WORD_BYTES
        self.coder = streaming.queue.RangeDecoder(np.frombuffer(stream + bytes(padding), ">u4").astype(np.uint32))

    def __call__(self, counts: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        try:
            return self.coder.decode(ROWS, np.ascontiguousarray(counts, np.float32)).astype(np.int64)
        except AssertionError:
            raise foreign_stream() from None

    def close(self) -> None:
        if not self.coder.maybe_exhausted():
            raise foreign_stream()


class Meter:
    """A port that adds up what an ideal coder would spend on the known symbols, in bits."""

    def __init__(self) -> None:
        self.bits = 0.0

    def __call__(self, counts: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        assert known is not None
        chosen = np.take_along_axis(counts, known[:, None], 1)
        self.bits -= float(np.log2((chosen + 1) / SCALE).sum())
        return known


class TokenCoder:
    """Codes tokens with the tables of their model.

    Args:
        tables: see `load_tables`.
        mode: CONTEXTUAL, or STATIC, which takes more bits and less time.
    """

    def __init__(self, tables: Tables, mode: int = CONTEXTUAL) -> None:
        self.tables, self.mode = tables, mode

    def encode(self, codes: np.ndarray, levels: np.ndarray | None) -> list[bytes]:
        """A stream for each stage.

        Shapes: codes and levels (S, h, w) integers; levels None where the model has no gains.

        Raises:
            CodecError: these are no tokens of the model.
        """
        self._check(codes, levels)
        writers = [Writer() for _ in codes]
        self._walk(writers, grid_of(codes), codes, levels)
        return [writer.stream() for writer in writers]

    def decode(self, streams: Sequence[bytes], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """The codes and levels, (S', h, w) int64, of the first S' = len(streams) stages.

        Streams carry no checksum: any bytes decode to some tokens, so verify them first, as `read` does.

        Raises:
            CodecError: there are more streams than stages, or they are seen not to be of these tables; also, before
                anything is allocated, those too short for static tables to have coded so many positions.
        """
        if not 1 <= len(streams) <= self.tables.stages:
            raise CodecError(f"there are {len(streams)} streams, and the model has {self.tables.stages} stages")
        for s, stream in enumerate(streams if self.mode == STATIC else ()):
            least = grid[0] * grid[1] * self.tables.static_bits(s).min() / 8
            if len(stream) + FLUSH_BYTES < least:
                raise foreign_stream()
        readers = [Reader(stream) for stream in streams]
        tokens = self._walk(readers, grid, None, None)
        for reader in readers:
            reader.close()
        return tokens

    def encode_together(self, codes: np.ndarray) -> bytes:
        """As `encode`, all stages in one stream, of a model without gains."""
        self._check(codes, None)
        writer = Writer()
        self._walk([writer] * len(codes), grid_of(codes), codes, None)
        return writer.stream()

    def decode_together(self, stream: bytes, grid: tuple[int, int]) -> np.ndarray:
        """The codes (S, h, w) int64 of a stream of `encode_together`; raises CodecError as `decode`."""
        reader = Reader(stream)
        codes, _ = self._walk([reader] * self.tables.stages, grid, None, None)
        reader.close()
        return codes

    def cost_bits(self, codes: np.ndarray, levels: np.ndarray | None) -> np.ndarray:
        """What an ideal coder would spend on each stage, (S,) float64: the sum of -log2 of the tables' probabilities.

        Raises:
            CodecError: these are no tokens of the model.
        """
        self._check(codes, levels)
        meters = [Meter() for _ in codes]
        self._walk(meters, grid_of(codes), codes, levels)
        return np.array([meter.bits for meter in meters])

    def _walk(
        self, ports: Sequence[Port], grid: tuple[int, int], codes: np.ndarray | None, levels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Pass all symbols through a port for each stage, of each piece the levels before the codes."""
        out_codes = np.zeros((len(ports), *grid), np.int64)
        out_levels = np.zeros_like(out_codes) if self.tables.levels else None
        seen = Seen(self.tables, len(ports), grid) if self.mode == CONTEXTUAL else None
        most = max(1, COUNTS // max(self.tables.codebook_size, self.tables.levels or 1))
        for s, port in enumerate(ports):
            stage = self.tables.of_stages[s]
            for at in wavefronts(*grid, most) if seen else runs(*grid, most):
                hidden = stage.hidden(seen.around(s, at)) if seen else None
                level = np.zeros(len(at[0]), np.int64)
                if out_levels is not None:
                    counts = stage.level_counts(hidden, len(level))
                    level = port(counts, levels if levels is None else levels[s][at])
                    out_levels[s][at] = level
                if self.tables.codebook_size > 1:
                    code = port(stage.code_counts(hidden, level), codes if codes is None else codes[s][at])
                    out_codes[s][at] = code
                if seen:
                    seen.add(s, at, stage.features_of(out_codes[s][at], level))
        return out_codes, out_levels

    def _check(self, codes: np.ndarray, levels: np.ndarray | None) -> None:
        """Raise CodecError unless these can be tokens of the model."""
        k, most = self.tables.codebook_size, self.tables.levels
        if codes.ndim != 3 or not codes.size or not 1 <= len(codes) <= self.tables.stages:
            raise CodecError(f"codes have shape {codes.shape}; they must be (up to {self.tables.stages} stages, h, w)")
        if (levels is None) != (most is None) or (levels is not None and levels.shape != codes.shape):
            raise CodecError(
                f"the model has {most or 'no'} gain levels; levels must have codes' shape where it has any"
            )
        for name, values, size in (("codes", codes, k), ("levels", levels, most)):
            if values is not None and size is not None:
                check_symbols(name, values, size)


class Seen:
    """What is known of the positions that were coded already, with a margin of zeros where there are none."""

    def __init__(self, tables: Tables, stages: int, grid: tuple[int, int]) -> None:
        h, w = grid
        shape = (stages, h + MARGIN, w + 2 * MARGIN, tables.of_stages[0].features)
        self._planes = np.zeros(shape, np.int16)

    def add(self, stage: int, at: Positions, features: np.ndarray) -> None:
        y, x = at
        self._planes[stage, y + MARGIN, x + MARGIN] = features

    def around(self, stage: int, at: Positions) -> np.ndarray:
        """(N, n F): the features of the neighbors, then those of the earlier stages at the same position."""
        y, x = at[0] + MARGIN, at[1] + MARGIN
        near = [self._planes[stage, y + dy, x + dx] for dy, dx in NEIGHBORS]
        return np.concatenate([*near, *self._planes[:stage, y, x]], 1)


def wavefronts(h: int, w: int, most: int) -> Iterator[Positions]:
    """Positions by x + 2 y and then by y, at most `most` at a time: the neighbors of each lie in earlier fronts."""
    for front in range(w + 2 * (h - 1)):
        first, last = max(0, (front - w + 2) // 2), min(h - 1, front // 2)
        for start in range(first, last + 1, most):
            y = np.arange(start, min(start + most, last + 1))
            yield y, front - 2 * y


def runs(h: int, w: int, most: int) -> Iterator[Positions]:
    """All positions in row-major order, at most `most` at a time."""
    for start in range(0, h * w, most):
        yield np.divmod(np.arange(start, min(start + most, h * w)), w)


def grid_of(codes: np.ndarray) -> tuple[int, int]:
    return codes.shape[1], codes.shape[2]


def foreign_stream() -> CodecError:
    return CodecError("a stream cannot be decoded with these tables; it is damaged, or was made with others")
