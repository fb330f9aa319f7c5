"""The command line: find the command, parse its words, run it, and say in one sentence what went wrong."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from hybridvq._version import __version__
from hybridvq.commands import (
    app,
    compare,
    compress,
    decompress,
    evaluate,
    export,
    fit_codec,
    info,
    models,
    recipes,
    reconstruct,
    sample,
    tokenize,
    train,
    train_prior,
)
from hybridvq.commands.arguments import add_threads_argument
from hybridvq.commands.parser import dashed, new_parser, underscore
from hybridvq.errors import ConfigError, DataError, HybridVQError, LostProcessError, did_you_mean
from hybridvq.extras import missing
from hybridvq.launch import is_first
from hybridvq.printing import say
from hybridvq.recipe import plain
from hybridvq.threads import threads_limited

EXAMPLES = """examples:
  hybridvq compare --recipes vector projected --steps 500      compare two quantizers on sample photographs
  hybridvq train --recipe vector --data my/photos --size 64    train a tokenizer on your own images
  hybridvq evaluate runs/vector --data my/photos               measure it on held-out images
  hybridvq reconstruct runs/vector cat.jpg -o out              send an image through tokens and back
  hybridvq tokenize runs/vector --data my/photos -o tokens     write the tokens of a data set to parquet files
  hybridvq fit-codec runs/vector --data my/photos              fit the tables that its tokens are compressed with
  hybridvq compress runs/vector cat.jpg -o cat.hvq             compress an image with it
  hybridvq app runs/vector                                     show it in a web page

`hybridvq COMMAND --help` lists a command's options, which may be written with dashes or underscores.
"""


class Command(Protocol):
    """What a module of `hybridvq.commands` offers."""

    SUMMARY: str

    def add_arguments(self, parser: ArgumentParser, words: Sequence[str], /) -> None: ...

    def run(self, arguments: Namespace, words: Sequence[str], /) -> None: ...


COMMANDS: dict[str, Command] = {
    "train": train,
    "evaluate": evaluate,
    "reconstruct": reconstruct,
    "tokenize": tokenize,
    "export": export,
    "train-prior": train_prior,
    "sample": sample,
    "fit-codec": fit_codec,
    "compress": compress,
    "decompress": decompress,
    "info": info,
    "models": models,
    "recipes": recipes,
    "compare": compare,
    "app": app,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 2 after one sentence on what went wrong, or 130 after Ctrl-C."""
    with suppress(AttributeError):  # whoever calls this may have put something simpler there
        # A terminal may lack the letters of a name or a table.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    words = [underscore(word) for word in (sys.argv[1:] if argv is None else argv)]
    try:
        check_command(words)
        parser = build_parser(words)
        if not words:
            parser.print_help(sys.stderr)
            return 2
        arguments = parser.instantiate(parser.parse_args(words))
        command = arguments.subcommand
        own = arguments[command]
        processes = own.get("devices")
        with threads_limited(own.threads, processes if isinstance(processes, int) else 1):
            COMMANDS[command].run(own, words)
    except ArgumentError as error:
        return complain(explain(error, words))
    except HybridVQError as error:
        # The first of several processes speaks for all, but for what one can meet alone.
        return complain(str(error)) if is_first() or isinstance(error, DataError | LostProcessError) else 2
    except ModuleNotFoundError as error:
        sentence = missing(error)
        if sentence is None:
            raise
        return complain(str(sentence))
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # of stdout, most often
            raise
        return complain(f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error})")
    except KeyboardInterrupt as error:
        if is_first():
            complain(str(error) or "interrupted")
        return 130
    return 0


def check_command(words: Sequence[str]) -> None:
    """Raise ConfigError where the first word is to be a command, and is none."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        near = did_you_mean(words[0], COMMANDS)
        raise ConfigError(f"there is no command {words[0]!r}{near}; `hybridvq --help` lists all")


def explain(error: ArgumentError, words: Sequence[str]) -> str:
    """What is wrong with the words, in a sentence."""
    command = words[0] if words[0] in COMMANDS else ""
    parser = build_command(command, [command]) if command else new_parser()
    text = plain(error, parser)
    if command:
        text = text.replace(f"{command}.", "")
    if "arguments are required" in text:
        order = [action.dest.upper() for action in parser._actions if not action.option_strings]
        text += f"; give `{' '.join(['hybridvq', command, *order])}`"
    return dashed(f"{text}; see `{f'hybridvq {command}'.strip()} --help`")


def complain(sentence: str) -> int:
    say(f"hybridvq: {' '.join(sentence.split())}", error=True)
    return 2


def build_parser(words: Sequence[str]) -> ArgumentParser:
    """The whole command line; `words` are looked at for --recipe, whose values are the defaults shown by --help."""
    parser = new_parser(
        prog="hybridvq",
        description="Train, measure and compare image tokenizers with discrete, continuous and mixed latents.",
        epilog=EXAMPLES,
        version=__version__,
    )
    commands = parser.add_subcommands(title="commands", description="", metavar="COMMAND")
    for name, command in COMMANDS.items():
        own = build_command(name, words) if words[:1] == [name] else new_parser(description=command.SUMMARY)
        commands.add_subcommand(name, own, help=command.SUMMARY)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def build_command(name: str, words: Sequence[str]) -> ArgumentParser:
    """The options of one command."""
    parser = new_parser(description=COMMANDS[name].SUMMARY)
    COMMANDS[name].add_arguments(parser, words)
    add_threads_argument(parser)
    return parser


if __name__ == "__main__":
    from hybridvq.__main__ import main as run_process

    sys.exit(run_process())
