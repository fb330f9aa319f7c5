"""JSON that is refused, and JSON that is written; YAML is tested with the recipes that it holds."""

import ast
import json
import math
from pathlib import Path

import pytest

from hybridvq.documents import parse_json, read_json, to_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"dim": 8, "dim": 9}', "it says 'dim' twice"),
        ('{"a": {"b": 1, "b": 1}}', "it says 'b' twice"),
        ("[NaN]", "NaN, and JSON has finite numbers only"),
        ("[-Infinity]", "-Infinity, and JSON"),
        ("1e999", "1e999, and JSON"),
        ("1" * 5000, r"the number 1{20}\.\.\., which is too large"),
        (str(2**64), "which is too large"),
        ("{", "Expecting"),
        (b"\xff", "utf-8"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@pytest.mark.parametrize("content", ["[1]", "null", "3", '"text"'])
def test_a_file_holds_keys(tmp_path, content):
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="it must hold keys and their values"):
        read_json(tmp_path / "x.json")


def test_what_is_written_is_json():
    content = {"a": [1.5, math.nan, (math.inf, -math.inf)], "b": {"c": math.nan, "d": True}, "e": "NaN", "ü": None}
    again = parse_json(to_json(content))
    assert again == {"a": [1.5, None, [None, None]], "b": {"c": None, "d": True}, "e": "NaN", "ü": None}
    assert to_json({"a": 1}) == (json.dumps({"a": 1}, indent=1) + "\n").encode()


ROOT = Path(__file__).parent.parent
SOURCES = [path for folder in ("src", "docs", "benchmarks", "experiments") for path in (ROOT / folder).rglob("*.py")]


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_text_is_utf8_everywhere():
    """Whatever the locale; files opened as bytes, and what is no file, have no encoding."""
    for path in SOURCES:
        for call in calls(path):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            is_builtin = name == "open" and isinstance(call.func, ast.Name)
            of_file = not ast.unparse(call.func).startswith("distribution(")  # importlib's has no encoding
            if (name in ("read_text", "write_text") and of_file) or is_builtin:
                said = {keyword.arg for keyword in call.keywords}
                mode = call.args[1].value if is_builtin and len(call.args) > 1 else ""
                assert "encoding" in said or "b" in mode, f"{path}:{call.lineno} reads or writes text without encoding"


def test_json_and_yaml_are_read_in_one_place():
    for path in SOURCES:
        if path.name != "documents.py":
            readers = {ast.unparse(call.func) for call in calls(path)}
            assert not readers & {"json.load", "json.loads", "yaml.load", "yaml.safe_load"}, path
