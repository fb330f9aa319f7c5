"""`hybridvq info`."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from hybridvq.printing import say

SUMMARY = "Say what an .hvq file holds, byte by byte."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("file", type=str, help="an .hvq file; no model is needed")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.codec.format import MAX_SIDE
    from hybridvq.codec.versions import describe

    data = Path(arguments.file).read_bytes()
    parts = describe(data, arguments.file, MAX_SIDE**2)
    rows = [*((part.name, part.size, part.value) for part in parts), ("file", len(data), "")]
    name_width, size_width = (max(len(f"{row[i]:,}" if i else str(row[i])) for row in rows) for i in (0, 1))
    for name, size, value in rows:
        say(f"{name:{name_width}}  {size:{size_width},} bytes  {value}".rstrip())
