"""Names that others chose, as text that every terminal, page and encoding can show."""

import sys


def printable(text: object) -> str:
    r"""The text on one line; what is no visible character becomes \x1b and the like, and cannot steer a terminal.

    Of a file name that is not UTF-8, the bytes that are not are shown, as \xff.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def say(text: object, *, error: bool = False) -> None:
    """Print one line, on standard error for an `error`, as `printable` gives it."""
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


def _escaped(character: str) -> str:
    # Python reads a byte that is not UTF-8 as this one of its surrogates.
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
