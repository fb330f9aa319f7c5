"""JSON and YAML, read and written in one way: UTF-8, and nothing in them that their reader cannot be sure of."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

LARGEST = 2**64  # of a whole number: no setting, count or seed is beyond it


def parse_json(text: str | bytes) -> Any:
    """What a JSON document says.

    Raises:
        ValueError: it is not JSON, says one key twice, is too deep, or holds a number beyond float64 or 64 bits.
    """
    try:
        return json.loads(text, object_pairs_hook=distinct, parse_constant=finite, parse_float=finite, parse_int=whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse_json`, or it holds something else than an object.
    """
    return mapping(parse_json(path.read_bytes()))


def to_json(content: Any, indent: int | None = 1) -> bytes:
    """A JSON document; a float that is not finite becomes null, which is what JSON has for it."""
    return (json.dumps(without_nan(content), indent=indent, allow_nan=False) + "\n").encode()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8 or YAML, says one key twice, is too deep, or refers to a part of itself.
    """
    try:
        return mapping(yaml.load(path.read_bytes().decode(), Plain))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"it is not readable YAML ({error})") from error


def mapping(content: Any) -> dict[str, Any]:
    """The content itself; raises ValueError if it is no mapping."""
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"it holds {found}; it must hold keys and their values")
    return content


class Plain(yaml.SafeLoader):
    """YAML without references, of which a few lines can stand for more than any memory, and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "references are not read; write out what this one stands for", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value]
        if odd := [key for key in keys if not isinstance(key, yaml.ScalarNode)]:
            raise yaml.MarkedYAMLError(None, None, "a key must be a word", odd[0].start_mark)
        distinct([(key.value, None) for key in keys])
        return super().construct_mapping(node, deep)


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict; raises ValueError if two have one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it says {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text[:20]}, and JSON has finite numbers only")
    return number


def whole(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= LARGEST:
        raise ValueError(f"it holds the number {text[:20]}..., which is too large")
    return number


def without_nan(content: Any) -> Any:
    """The same with None for every float that is not finite."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
