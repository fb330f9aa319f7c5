"""The container: every part where docs/format.md puts it, and one sentence for whatever is wrong with a file."""

import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from codec import small
from hybridvq.codec import CONTEXTUAL, STATIC, TokenCoder, check_model, describe, header_of, read, truncate, write
from hybridvq.codec.coder import wavefronts
from hybridvq.codec.format import CHECKSUM_BYTES, MAX_PIXELS, checksum, most_waves, varint
from hybridvq.errors import CodecError, ConfigError

TABLES = small.tables(stages=3)
HEADER = header_of(TABLES, 30, 23, 4, mode=STATIC, color=5)


@pytest.fixture(scope="module")
def streams():
    return TokenCoder(TABLES, STATIC).encode(*small.tokens(8, 6, stages=3))


@pytest.fixture(scope="module")
def file(streams):
    return write(HEADER, streams)


def seal(body: bytes) -> bytes:
    return body + checksum(body)


def test_byte_by_byte(file, streams):
    header = [b"HVQ", b"\x01", b"\x5e" * 8, TABLES.digest[:4], b"\x02", b"\x05", bytes([30, 23, 16, 4, 3, 3])]
    expected = b"".join([*header, *(varint(len(stream)) for stream in streams), *streams])
    assert file == expected + hashlib.sha256(expected).digest()[:8]
    assert len(file) - sum(map(len, streams)) < 40


def test_what_is_written_is_read(file, streams):
    assert read(file) == (HEADER, streams)
    assert HEADER.grid == (8, 6)


def test_parts_sum_to_the_file(file, streams):
    parts = describe(file)
    assert sum(part.size for part in parts) == len(file)
    assert [part.size for part in parts if part.name.startswith("stage ")] == [len(stream) for stream in streams]
    assert "23x30 pixels, 6x8 positions" in {part.value for part in parts}


def test_cut_to_stages(file, streams):
    for stages in (1, 2, 3):
        header, kept = read(truncate(file, stages))
        assert (header, kept) == (HEADER, streams[:stages])
    assert truncate(file, 3) == file
    for stages in (0, 4):
        with pytest.raises(CodecError, match="use 1 to 3"):
            truncate(file, stages)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**32 - 1, 2**63 - 1])
def test_numbers_take_seven_bits_a_byte(value):
    encoded = varint(value)
    assert len(encoded) == max(1, -(-value.bit_length() // 7))
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(encoded)) == value
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]


def test_every_cut_is_noticed(file):
    for length in range(len(file)):
        with pytest.raises(CodecError, match=r"cut off|not an .hvq file|damaged"):
            read(file[:length])


def test_every_flipped_bit_is_noticed(file):
    for bit in range(8 * len(file)):
        flipped = bytearray(file)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            read(bytes(flipped))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: b"", "photo.hvq is not an .hvq file"),
        (lambda file: b"\x89PNG" + file[4:], "photo.hvq is not an .hvq file; give one that `hybridvq compress` wrote"),
        (lambda file: file[:20], "photo.hvq is cut off within its header"),
        (lambda file: file[:-5], r"photo.hvq is cut off: \d+ of \d+ bytes are there"),
        (lambda file: file[:-1] + bytes([file[-1] ^ 1]), "photo.hvq is damaged: its checksum"),
        (lambda file: file + b"\0", "photo.hvq is damaged"),
        (lambda file: file[:3] + b"\x02" + file[4:], "photo.hvq was made by a hybrid model"),
        (lambda file: file[:3] + b"\x03" + file[4:], "photo.hvq has format 3 and this version reads up to 2; update"),
        (lambda file: file[:18] + b"\x9e\x00" + file[19:], "photo.hvq is damaged: a number"),
    ],
)
def test_damage(file, change, message):
    with pytest.raises(CodecError, match=message):
        read(change(file), "photo.hvq")


def test_a_gain_step_is_refused(file):
    """Files of earlier versions may hold one, in the high four bits of the color."""
    at = len(b"HVQ1") + 8 + 4 + 1
    body = file[:at] + bytes([2 << 4 | file[at]]) + file[at + 1 : -CHECKSUM_BYTES]
    with pytest.raises(CodecError, match="was written with gain_step 2, which this version no longer reads"):
        read(seal(body), "photo.hvq")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 0}, "impossible size"),
        ({"width": 2**32}, "impossible size"),
        ({"factor": 3}, "positions of 3 pixels"),
        ({"codebook_size": 0}, "codebook of 0"),
        ({"codebook_size": 2**16 + 1}, "codebook of 65537"),
        ({"levels": 1}, "1 gain levels"),
        ({"levels": 257}, "257 gain levels"),
        ({"stages": 2}, "streams of other than 2 stages"),
        ({"stages": 257}, "257 stages"),
        ({"mode": 2}, "unknown kind 2"),
        ({"height": 2**32 - 1, "width": 2**32 - 1}, "which no image needs"),
        ({"height": 1, "width": 1}, "which no image needs"),
        ({"model": b"short"}, "hashes of another length"),
    ],
)
def test_fields_that_cannot_be(streams, fields, message):
    with pytest.raises(CodecError, match=message):
        write(replace(HEADER, **fields), streams)


def test_a_size_that_is_not_believed(streams):
    large = write(replace(HEADER, height=2**10, width=2**9), streams)
    with pytest.raises(
        CodecError, match=r"claims 512x1024 pixels, more than the 524287 that are allowed; .* max_pixels"
    ):
        read(large, max_pixels=2**19 - 1)
    assert read(large, max_pixels=2**19)[0].grid == (256, 128)


@pytest.mark.parametrize("max_pixels", [0, -1, 1.5, float("nan"), float("inf"), True, "400", None])
def test_sizes_to_believe(file, max_pixels):
    with pytest.raises(ConfigError, match=r"max_pixels is .*; it must be"):
        read(file, max_pixels=max_pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 2**20), (2**20, 1), (6, 2**25), (2**28, 1)])
def test_long_and_thin_images_cost_more_than_their_pixels(height, width):
    """Contextual tables wait for each wavefront; static ones have none."""
    h, w = -(-height // 4), -(-width // 4)
    waves, streams = max(h, w) + 2 * min(h - 1, w - 1), [bytes(h * w // 400)] * 3
    thin = write(replace(HEADER, height=height, width=width, mode=CONTEXTUAL), streams)
    with pytest.raises(CodecError, match=rf"cat.hvq claims .* {waves} wavefronts, more than the 81920 .* max_pix"):
        read(thin, "cat.hvq")
    assert read(thin, max_pixels=2**40)[0].waves == waves
    assert read(write(replace(HEADER, height=height, width=width), streams))[0].waves == 0
    assert "stage 2" in {part.name for part in describe(thin, max_pixels=2**40)}, "without decoding, all can be told"


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (8, 1), (11, 7)])
def test_waves_are_counted(grid):
    header = replace(HEADER, height=4 * grid[0], width=4 * grid[1], mode=CONTEXTUAL)
    assert header.waves == len(list(wavefronts(*grid, 100)))


def test_images_of_common_shapes_are_believed():
    for pixels, factor, aspect in itertools.product((2**16, 2**20, 10**8, MAX_PIXELS), (2, 4, 16), (1 / 16, 1, 2, 8)):
        height = int((pixels * aspect) ** 0.5)
        header = replace(HEADER, height=height, width=pixels // height, factor=factor, mode=CONTEXTUAL)
        assert header.waves <= most_waves(pixels)


def skewed(k: int, levels: int | None):
    """Tables that make the first code and level as likely as any tables can."""
    tables = small.tables(k, levels)
    (stage,) = tables.of_stages
    shares = np.ones_like(stage.shares)
    shares[0, 0] = 2**32 - 1
    flat = {name: np.zeros_like(getattr(stage, name)) for name in ("code_out", "code_bias", "level_out", "level_bias")}
    for bias in (flat["code_bias"], flat["level_bias"]):
        bias[1:] = -(2**15 - 1)
    return replace(tables, of_stages=(replace(stage, shares=shares, **flat),))


@pytest.mark.parametrize("mode", [STATIC, CONTEXTUAL])
@pytest.mark.parametrize(("k", "levels"), [(2, None), (16, None), (2, 2), (16, 4), (1, 3), (300, 9)])
def test_no_stream_is_shorter_than_is_believed(k, levels, mode):
    """The cheapest image there can be is read, and one that needs more bytes than it and its end have is not."""
    tables, codes = skewed(k, levels), np.zeros((1, 150, 150), np.int64)
    coder = TokenCoder(tables, mode)
    streams = coder.encode(codes, None if levels is None else codes)
    header = header_of(tables, 600, 600, 4, mode=mode)
    assert read(write(header, streams)) == (header, streams)
    assert not coder.decode(streams, header.grid)[0].any()
    bits = -sum(math.log2(1 - (n - 1) / 256 / n) for n in (k, levels or 1))  # a 256th is shared out evenly
    more = replace(header, width=4 * math.ceil(8 * (len(streams[0]) + 9) / bits / 150))
    with pytest.raises(CodecError, match="which no image needs"):
        write(more, streams)


def test_checks_come_after_the_checksum(file):
    """A forged header with a checksum of its own is refused for what it says, a damaged one for its damage."""
    body = bytearray(file[:-CHECKSUM_BYTES])
    body[16] = 0xF2
    with pytest.raises(CodecError, match="unknown kind 15"):
        read(seal(bytes(body)))
    with pytest.raises(CodecError, match="checksum"):
        read(bytes(body) + file[-CHECKSUM_BYTES:])


def test_the_model_that_made_it():
    check_model(HEADER, TABLES)
    other = replace(TABLES, model="00" * 32)
    with pytest.raises(
        CodecError, match=r"photo.hvq was made by the model 5e5e5e5e5e5e5e5e, and this one is 0000000000000000"
    ):
        check_model(HEADER, other, "photo.hvq")
    with pytest.raises(
        CodecError, match=f"the tables {TABLES.digest[:4].hex()} of this model, and these are [0-9a-f]{{8}};"
    ):
        check_model(HEADER, small.tables(stages=3, seed=2))
    with pytest.raises(CodecError, match="contradicts"):
        check_model(replace(HEADER, levels=8), TABLES)
