"""Recipes: one model and how it is trained, read from YAML files that state only what differs from base.yaml."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser

from hybridvq.documents import read_yaml
from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.settings import Recipe, dotted

RECIPES = Path(__file__).parent / "recipes"
BASE = RECIPES / "base.yaml"


def recipe_names() -> list[str]:
    """The bundled recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path != BASE)


def recipe_path(recipe: str) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        ConfigError: there is none.
    """
    for path in (Path(recipe), RECIPES / f"{recipe}.yaml"):
        if path.is_file():
            return path
    near = did_you_mean(recipe, recipe_names())
    raise ConfigError(f"there is no recipe {recipe!r}{near}; give a YAML file or one of {', '.join(recipe_names())}")


def add_recipe_arguments(parser: ArgumentParser) -> None:
    """The options --title to --training.checkpoint_every."""
    parser.add_class_arguments(Recipe, skip={"name"})


def load_recipe(recipe: str, overrides: Mapping[str, Any] | Iterable[str] = ()) -> Recipe:
    """The recipe of that name or file over base.yaml, with overrides on top.

    Args:
        recipe: a name from `recipe_names()` or a YAML file.
        overrides: dotted keys and values, {"model.dim": 128}, or command-line words, ["--model.dim=128"].

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, or no such recipe.
    """
    path = recipe_path(recipe)
    if isinstance(overrides, Mapping):
        overrides = [f"--{key}={as_word(value)}" for key, value in overrides.items()]
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--recipe", action=YamlFile)
    add_recipe_arguments(parser)
    try:
        settings = parser.parse_args(["--recipe", str(BASE), "--recipe", str(path), *overrides])
        settings.pop("recipe", None)
        built = Recipe(**vars(parser.instantiate(settings)))
    except ConfigError as error:
        raise ConfigError(f"recipe {path}: {str(error).removeprefix(f'{path}: ')}") from error
    except Exception as error:  # jsonargparse raises several kinds for a bad value; all are the user's
        raise ConfigError(f"recipe {path}: {plain(error, parser)}; `hybridvq train --help` lists every key") from error
    built.name = path.stem
    built.title = built.title or path.stem
    return built


def as_word(value: Any) -> str:
    """A value as a command-line word that is read back as the same value."""
    return value if isinstance(value, str) else json.dumps(value)


def plain(error: Exception, parser: ArgumentParser) -> str:
    """What jsonargparse says of a wrong option or key, in one line and in a user's terms, and which was meant."""
    text = " ".join(str(error).split())
    text = re.sub(r"Parser key \"([^\"]+)\":", r"\1:", text)
    text = re.sub(r"Expected an? <class '(\w+)'>\. Got value: (.*)", r"'\2' is not of type \1", text)
    text = re.sub(r"unrecognized arguments: (?=-)", "there is no option ", text).rstrip(".")
    text = re.sub(r"unrecognized arguments: (.*)", r"there is no place for \1", text)
    text = re.sub(r"Subcommand '\S+' does not accept option '(.*)'", r"there is no key \1", text)
    text = re.sub(r"Group '(\S+)' does not accept option '(.*)'", r"there is no key \1.\2", text)
    text = re.sub(r"Option '(.*)' is not accepted", r"there is no key \1", text)
    if found := re.search(r"there is no (option|key) (\S+)", text):
        options, keys = {name for a in parser._actions for name in a.option_strings}, [a.dest for a in parser._actions]
        text += did_you_mean(found[2], options if found[1] == "option" else keys)
        if "--overrides" in options and re.match(r"--(model|training)\.", found[2]):
            text += "; compare sets recipe keys with --overrides, such as --overrides.model.dim 32"
    return text


class YamlFile(ActionConfigFile):
    """An option whose file holds values of the others; read as `read_yaml` does, in any locale."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            content = read_yaml(Path(values))
        except OSError as error:
            raise ConfigError(f"{values}: it cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise ConfigError(f"{values}: {' '.join(str(error).split())}") from error
        if isinstance(content.get("overrides"), dict):
            content["overrides"] = dotted(content["overrides"])  # jsonargparse keeps the last of two nested mappings
        # ASCII, which no locale can misread.
        super().__call__(parser, cfg, yaml.safe_dump(content, sort_keys=False), option_string)
