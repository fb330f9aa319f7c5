"""Feed damaged and forged files to the reader, and see that each is refused in a sentence or decodes to what it should.

    python -m benchmarks.stress.fuzz docs/results/fuzz/fuzz.json [--files 100000] [--seed 0]

From the files of small images with different models come: every truncation, flipped bits, random bytes, files spliced
of two, headers whose fields have extreme values under a valid checksum, random streams under a valid checksum, and
headers that claim images far larger than their streams can hold. Without a valid checksum a file may only be refused,
or decode to the tokens it was made of; with one, it may decode to any tokens of the right number and range. Every file
has ten seconds.
"""

import argparse
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import forget_peak, peak_mib, write_result
from hybridvq import CodecError, Tokenizer
from hybridvq.codec import (
    CONTEXTUAL,
    STATIC,
    Header,
    Tables,
    TokenCoder,
    check_model,
    fit_tables,
    header_of,
    layered,
    read,
    write,
)
from hybridvq.codec.fit_scales import fit_scales
from hybridvq.codec.format import MAGIC, MAX_PIXELS, VERSION, checksum, pack, varint
from hybridvq.codec.hybrid import Latent, decode
from hybridvq.codec.layered import LayeredHeader

LIMIT_SECONDS = 10
LIMIT_MIB = 256  # that all files together may add to the peak of memory
BELIEVED_PIXELS = 2**12  # of a forged file that is decoded at all
PAGE = """What the reader of [compressed files](../../format.md) makes of files that it should not trust. "Some tokens"
are those of a forged file with a valid checksum, in the number and range that its header says: no checksum can tell."""
KINDS = ("truncated", "flipped", "random", "spliced", "forged header", "forged streams", "bomb")
FORGED = ("forged header", "forged streams", "bomb")
SIDES = (0, 1, 2, 3, 63, 64, 65, 127, 128, 2**16, 2**28, 2**31, 2**32 - 1, 2**32, 2**62)
EXTREMES: dict[str, tuple[Any, ...]] = {
    "height": SIDES,
    "width": SIDES,
    "factor": tuple(2**i for i in range(16)),
    "codebook_size": (0, 1, 2, 15, 16, 17, 2**16, 2**16 + 1, 2**32, 2**62),
    "levels": (None, 1, 2, 4, 255, 256, 257, 2**32),
    "stages": (0, 1, 2, 3, 4, 255, 256, 257, 2**32),
    "mode": tuple(range(16)),
    "color": tuple(range(256)),
    "step": (0, 1, 128, 255),
}


@dataclass(frozen=True)
class Original:
    """A good file, and what it holds."""

    tables: Tables
    header: Header | LayeredHeader
    streams: list[bytes]
    file: bytes


class HangError(Exception):
    """A file took more than its ten seconds."""


def make_originals(seed: int) -> list[Original]:
    """Files of random tokens of four models, with tables that were hardly fitted."""
    torch.manual_seed(seed)
    draw, originals = np.random.default_rng(seed), []
    for k, levels, stages, sizes in (
        (16, 4, 1, (37, 22)),
        (64, 8, 3, (20, 13)),
        (300, None, 1, (30, 30)),
        (2, 2, 1, (1, 1)),
    ):
        options = {"codebook_size": k} | ({"levels": levels, "stages": stages} if levels else {})
        tokenizer = Tokenizer(4, 4, "gain-shape" if levels else "vector", options)
        shape = (1, stages, *(-(-side // 4) for side in sizes))
        codes, gains = draw.integers(0, k, shape), draw.integers(0, levels, shape) if levels else None
        tables = fit_tables([(codes, gains)], tokenizer, draw.bytes(32).hex(), width=8, steps=3)
        for mode in (STATIC, CONTEXTUAL):
            header = header_of(tables, *sizes, 4, mode=mode)
            streams = TokenCoder(tables, mode).encode(codes[0], None if gains is None else gains[0])
            originals.append(Original(tables, header, streams, write(header, streams)))
    return [*originals, *make_layered(seed)]


def make_layered(seed: int) -> list[Original]:
    """Files of codes and coefficients of a hybrid model, of random numbers."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer(6, 8, "hybrid", {"groups": 2, "codebook_size": 16, "code_dim": 2, "width": 8}, "photo")
    quantizer = tokenizer.quantizer
    quantizer.steps.fill_(10**6)  # as if it had been trained
    draw, (height, width) = np.random.default_rng(seed), (37, 60)
    codes, rest = torch.from_numpy(draw.integers(0, 16, (1, 2, 2, 2))), torch.randn(1, 6, 5, 8) * 3
    tables = fit_tables([(codes.numpy(), None)], tokenizer, draw.bytes(32).hex(), width=8, steps=3)
    tables = replace(tables, scales=fit_scales([(codes, rest)], quantizer, steps=3, width=8))
    originals = []
    for mode in (STATIC, CONTEXTUAL):
        latent = Latent(codes[0].numpy(), rest[0].numpy(), tables, 0.06)
        streams = [latent.code_stream(mode), *latent.coefficient_streams(128)]
        header = layered.layered_header(tables, height, width, 8, 128, mode=mode)
        file = layered.write(header, streams)
        originals.append(Original(tables, layered.read(file)[0], streams, file))
    return originals


def seal(body: bytes) -> bytes:
    return body + checksum(body)


def forged(header: Header | LayeredHeader, streams: list[bytes]) -> bytes:
    """A file with valid checksums, whatever its header says."""
    if isinstance(header, LayeredHeader):
        return layered.seal(header, streams)
    sizes = b"".join(varint(len(stream)) for stream in streams)
    return seal(b"".join([*pack(header, len(streams)), sizes, *streams]))


def truncations(originals: list[Original]) -> Iterator[bytes]:
    while True:
        for original in originals:
            for length in range(len(original.file)):
                yield original.file[:length]


def flipped(file: bytes, draw: random.Random) -> bytes:
    changed = bytearray(file)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def spliced(a: bytes, b: bytes, draw: random.Random) -> bytes:
    return a[: draw.randrange(len(a))] + b[draw.randrange(len(b)) :]


def random_file(draw: random.Random) -> bytes:
    """Random bytes, half of them under a good start, and a quarter with a checksum."""
    body = draw.randbytes(draw.randrange(200))
    if draw.random() < 0.5:
        body = MAGIC + bytes([VERSION]) + body
    return seal(body) if draw.random() < 0.25 else body


def forged_header(original: Original, draw: random.Random) -> bytes:
    names = draw.sample(sorted(name for name in EXTREMES if hasattr(original.header, name)), draw.randint(1, 3))
    return forged(replace(original.header, **{name: draw.choice(EXTREMES[name]) for name in names}), original.streams)


def forged_streams(original: Original, draw: random.Random) -> bytes:
    streams = [draw.randbytes(max(0, len(stream) + draw.randint(-3, 9))) for stream in original.streams]
    return forged(original.header, streams[: draw.randint(1, len(streams))])


def bomb(original: Original, draw: random.Random) -> bytes:
    height = 2 ** draw.uniform(0, 28)
    size = {"height": int(height), "width": int(2**28 / height), "factor": draw.choice((1, 4, 16))}
    return forged(replace(original.header, **size), [draw.randbytes(draw.randrange(3)) for _ in original.streams])


def files(originals: list[Original], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` files, the kinds in turn."""
    draw, cuts = random.Random(seed), truncations(originals)
    for number in range(count):
        kind, original, other = KINDS[number % len(KINDS)], draw.choice(originals), draw.choice(originals)
        makers = {
            "truncated": lambda: next(cuts),
            "flipped": lambda o=original: flipped(o.file, draw),
            "random": lambda: random_file(draw),
            "spliced": lambda o=original, p=other: spliced(o.file, p.file, draw),
            "forged header": lambda o=original: forged_header(o, draw),
            "forged streams": lambda o=original: forged_streams(o, draw),
            "bomb": lambda o=original: bomb(o, draw),
        }
        yield kind, makers[kind]()


def outcome(data: bytes, kind: str, originals: list[Original]) -> str:
    """What became of a file: refused, same tokens, tokens of a forged file, or what must not be."""
    if data[: len(MAGIC) + 1] == MAGIC + bytes([layered.VERSION]):
        return layered_outcome(data, kind, originals)
    try:
        header, streams = read(data, max_pixels=MAX_PIXELS if kind == "bomb" else BELIEVED_PIXELS)
        tables = next((o.tables for o in originals if o.header.tables == header.tables), originals[0].tables)
        check_model(header, tables)
        codes, levels = TokenCoder(tables, header.mode).decode(streams, header.grid)
    except CodecError as error:
        return "refused" if str(error) else "REFUSED WITHOUT A WORD"
    if any(data == original.file for original in originals):
        return "the same tokens"
    well_formed = (
        codes.shape == (len(streams), *header.grid) and codes.min() >= 0 and codes.max() < tables.codebook_size
    )
    if levels is not None:
        well_formed = well_formed and levels.min() >= 0 and levels.max() < (tables.levels or 0)
    return "some tokens" if kind in FORGED and well_formed else "WRONG TOKENS"


def layered_outcome(data: bytes, kind: str, originals: list[Original]) -> str:
    """`outcome` of a file of version 2, which may hold its first streams alone."""
    try:
        header, codes, streams = layered.read(data, max_pixels=MAX_PIXELS if kind == "bomb" else BELIEVED_PIXELS)
        tables = next((o.tables for o in originals if o.header.tables == header.tables), originals[-1].tables)
        layered.check_model(header, tables)
        layers = decode(header, codes, streams, tables)
    except CodecError as error:
        return "refused" if str(error) else "REFUSED WITHOUT A WORD"
    there = [codes, *streams]
    if any(header == original.header and there == original.streams[: len(there)] for original in originals):
        return "the same tokens"
    well_formed = layers.codes.shape[1:] == header.codes.grid and layers.codes.max() < tables.codebook_size
    if layers.rest is not None:
        well_formed = well_formed and layers.rest.shape[1:] == header.size
    return "some tokens" if kind in FORGED and well_formed else "WRONG TOKENS"


def guarded(data: bytes, kind: str, originals: list[Original]) -> str:
    """`outcome`, in time and whatever is raised."""
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        return outcome(data, kind, originals)
    except HangError:
        return "HANG"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of the range coder is no Exception
        return f"CRASH {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ring(*_: object) -> None:
    raise HangError


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Counts of what became of `count` files by their kind, the longest time and the memory that they took."""
    signal.signal(signal.SIGALRM, ring)
    originals, counts, longest = make_originals(seed), {kind: Counter() for kind in KINDS}, 0.0
    assert all(guarded(original.file, "good", originals) == "the same tokens" for original in originals)
    forget_peak()
    before, bad = peak_mib(), []
    for kind, data in files(originals, count, seed):
        start = time.perf_counter()
        result = guarded(data, kind, originals)
        longest = max(longest, time.perf_counter() - start)
        counts[kind][result] += 1
        if result[0].isupper():
            bad.append({"kind": kind, "result": result, "file": data.hex()})
    return {
        "files": count,
        "seed": seed,
        "bad": bad,
        "longest_s": round(longest, 2),
        "memory_mib": round(peak_mib() - before, 1),
        "counts": {kind: dict(counter) for kind, counter in counts.items()},
    }


def table(result: dict[str, Any]) -> list[str]:
    good = ("refused", "the same tokens", "some tokens")
    rows = ["| files | " + " | ".join(good) + " | anything else |", "|---|--:|--:|--:|--:|"]
    for kind, counts in result["counts"].items():
        cells = [counts.get(name, 0) for name in good]
        rows.append(f"| {kind} | " + " | ".join(f"{n:,}" for n in [*cells, sum(counts.values()) - sum(cells)]) + " |")
    longest = f"The longest took {result['longest_s']} s, and all together {result['memory_mib']} MiB of memory."
    return ["# Damaged and forged files", "", PAGE, "", *rows, "", longest]


def main(path: Path, count: int, seed: int) -> None:
    result = fuzz(count, seed)
    write_result(path, "benchmarks.stress.fuzz", result, table(result), ["--files", str(count), "--seed", str(seed)])
    if result["bad"] or result["memory_mib"] > LIMIT_MIB:
        raise SystemExit(f"{len(result['bad'])} files did what they must not, see {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.path, arguments.files, arguments.seed)
