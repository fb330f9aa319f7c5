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
from hybridvq.commands.arguments import add_threads_argument, new_parser, underscore
from hybridvq.errors import DataError, HybridVQError, LostProcessError
from hybridvq.extras import missing
from hybridvq.launch import is_first
from hybridvq.printing import say
from hybridvq.recipe import plain
from hybridvq.threads import threads_limited

EXAMPLES = """examples:
  hybridvq compare --recipes vector projected --steps 500      compare two quantizers on sample photographs
  hybridvq train --recipe vector --data my/photos --size 64    train a tokenizer on your own images
  hybridvq evaluate runs/vector --data my/photos               measure it on held-out images
  hybridvq reconstruct runs/vector cat.jpg --out out           send an image through tokens and back
  hybridvq tokenize runs/vector --data my/photos --out tokens  write the tokens of a data set to parquet files
  hybridvq fit-codec runs/vector --data my/photos              fit the tables that its tokens are compressed with
  hybridvq compress cat.jpg --model runs/vector --out cat.hvq  compress an image with it
  hybridvq app --model runs/vector                             show it in a web page

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
        help_of = " ".join(["hybridvq", *words[:1]]) if words[0] in COMMANDS else "hybridvq"
        return complain(f"{plain(error)}; see `{help_of} --help`")
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
        own = new_parser(description=command.SUMMARY)
        if words[:1] == [name]:
            command.add_arguments(own, words)
            add_threads_argument(own)
        commands.add_subcommand(name, own, help=command.SUMMARY)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


if __name__ == "__main__":
    from hybridvq.__main__ import main as run_process

    sys.exit(run_process())
