"""Arguments that several commands share, and how their values are read."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from hybridvq.settings import DataSettings


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Types and defaults beside each option; the examples as they are written."""


def new_parser(**options: Any) -> ArgumentParser:
    return ArgumentParser(exit_on_error=False, allow_abbrev=False, formatter_class=HelpFormatter, **options)


def underscored(word: str) -> str:
    """--skip-unreadable and --skip_unreadable are the same option; values keep their dashes."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def add_model_argument(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="a folder that `hybridvq train` wrote, or a hub id")


def add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_class_arguments(DataSettings, skip={"skip_unreadable"})
    add_skip_argument(parser)


def add_data_and_size_arguments(parser: ArgumentParser) -> None:
    """As `add_data_arguments`, for a trained model, whose run tells the size."""
    parser.add_class_arguments(DataSettings, skip={"size", "skip_unreadable"})
    parser.add_argument(
        "--size",
        type=int | None,
        default=None,
        help="side of the square crops, in pixels; if not given, the one of the training, or 32 where no run tells it",
    )
    add_skip_argument(parser)


def add_skip_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, and list them, instead of stopping",
    )


def data_settings(arguments: Namespace) -> DataSettings:
    return DataSettings(**{key: arguments[key] for key in DataSettings.__dataclass_fields__})


def data_of_the_model(arguments: Namespace) -> DataSettings:
    """As `data_settings`, at the size that `model` was trained on if none is given."""
    if arguments.size is None:
        arguments.size = trained_size(Path(arguments.model))
    return data_settings(arguments)


def list_skipped(skipped: Sequence[str]) -> None:
    if skipped:
        print(f"left out {len(skipped)} unreadable images:", *skipped, sep="\n  ", file=sys.stderr)


def trained_size(folder: Path) -> int:
    """The size of the images a run was trained on, as its recipe.json tells; the default size without one."""
    try:
        return int(json.loads((folder / "recipe.json").read_text())["data"]["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return DataSettings().size
