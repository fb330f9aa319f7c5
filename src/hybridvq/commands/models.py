"""`hybridvq models`."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import print_rows

SUMMARY = "List the bundled models."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of lines")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.pretrained import pretrained_folder, pretrained_names, pretrained_summary

    rows: list[dict[str, Any]] = []
    for name in pretrained_names():
        folder = pretrained_folder(name)
        assert folder is not None
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        rows.append({"name": name, "summary": pretrained_summary(name), "bytes": size, "folder": str(folder)})
    print_rows(rows, [f"{row['bytes'] / 1e6:.1f} MB" for row in rows], arguments.json)
