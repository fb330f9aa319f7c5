"""A result is drawn with the report's own functions; anything else is a sentence."""

import json
from pathlib import Path

import pytest

from hybridvq import ConfigError
from hybridvq.app import compare

RESULT = Path(__file__).parents[2] / "docs" / "results" / "beta-1" / "result.json"


def test_a_result_is_drawn():
    page = compare.open_result(RESULT)
    for run in json.loads(RESULT.read_text())["runs"]:
        assert f"<td>{run['title']}</td>" in page
    assert page.count("data:image/svg+xml;base64,") == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "result.json: Expecting"),
        ("[" * 100_000, "result.json: it is nested too deeply"),
        ("{}", "result.json is not a comparison of schema 1"),
        ('{"schema": 1, "runs": []}', "result.json has no runs"),
        (
            '{"schema": 1, "runs": [{"recipe": "a", "title": "b", "group": "c", "description": "d", "curve": 3}]}',
            "result.json is not a result that can be drawn",
        ),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ConfigError, match=f"^{message}"):
        compare.open_result(tmp_path / "result.json")


def test_titles_are_text(tmp_path):
    result = json.loads(RESULT.read_text())
    result["runs"][0]["title"] = "<script>alert(1)</script>"
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert "<script>" not in compare.open_result(tmp_path / "result.json")
