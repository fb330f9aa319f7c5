"""How a command line is spelled: dashes and underscores, long names and short ones."""

import argparse
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from hybridvq.errors import ConfigError

SHORT = {"--steps": "--training.steps", "--batch_size": "--training.batch_size"}


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Types and defaults beside each option, which is spelled with dashes; the examples as they are written."""

    def format_help(self) -> str:
        return dashed(super().format_help())


def new_parser(**options: Any) -> ArgumentParser:
    return ArgumentParser(exit_on_error=False, allow_abbrev=False, formatter_class=HelpFormatter, **options)


def underscore(word: str) -> str:
    """--skip-unreadable and --skip_unreadable are the same option; values keep their dashes."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def dashed(text: str) -> str:
    """The text with dashes in the names of its options."""
    return re.sub(r"(?<![\w-])--\w[\w.]*", lambda found: found[0].replace("_", "-"), text)


def given_values(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option among the words and its value, if it has one."""
    for word, following in pairwise([*words, ""]):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            yield name, value if equals else following


def add_short_names(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Let the keys of SHORT stand for its values, options that are there.

    Raises:
        ConfigError: the words give both, with different values.
    """
    given = dict(given_values(words))
    for short, long in SHORT.items():
        action = parser._option_string_actions[long]
        action.option_strings = [short, long]
        parser._option_string_actions[short] = action
        if short in given and given.get(long, given[short]) != given[short]:
            raise ConfigError(dashed(f"{short} {given[short]} and {long} {given[long]} set the same; give one of them"))
