"""`hybridvq recipes`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import print_rows
from hybridvq.recipe import load_recipe, recipe_names, recipe_path

SUMMARY = "List the recipes that `train` and `compare` know by name."


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of lines")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    from hybridvq.tokenizer import Tokenizer

    rows: list[dict[str, Any]] = []
    for recipe in map(load_recipe, recipe_names()):
        parameters = sum(value.numel() for value in Tokenizer(**asdict(recipe.model)).parameters())
        summary, path = recipe.description or recipe.title, str(recipe_path(recipe.name))
        rows.append({"name": recipe.name, "summary": summary, "parameters": parameters, "file": path})
    print_rows(rows, [f"{row['parameters'] / 1e6:.2f} million parameters" for row in rows], arguments.json)
