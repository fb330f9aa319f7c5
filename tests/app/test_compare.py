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


def grown(run, **changes):
    return json.dumps({"schema": 1, "runs": [run | changes]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": "W" * 3_000_000}, "has a text of 3,000,000 characters, over the limit of 300"),
        ({"W" * 301: 0}, "has a text of 301 characters"),
        ({"curve": {"notes": [["W" * 1000]]}}, "has a text of 1,000 characters"),
        (
            {"gains": {"rounded": [{"bits": bits} for bits in range(100_000)]}},
            "has a list of 100,000 entries, over the ",
        ),
        ({"usage": [1] * 200_000}, "has a list of 200,000 entries, over the limit of 131,072"),
        ({"curve": {str(number): 0 for number in range(200_000)}}, "has a list of 200,000 entries"),
        ({"usage": [1] * 1_500_000}, "is larger than 4 MB"),
    ],
)
def test_results_that_would_take_hours(tmp_path, changes, message):
    run = json.loads(RESULT.read_text())["runs"][0]
    (tmp_path / "result.json").write_text(grown(run, **changes))
    with pytest.raises(ConfigError, match=f"^result.json {message}"):
        compare.open_result(tmp_path / "result.json")


def test_many_runs(tmp_path):
    result = json.loads(RESULT.read_text())
    result["runs"] = [{**result["runs"][0], "curve": {}, "recipe": str(number)} for number in range(65)]
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"^result.json has a list of 65 entries, over the limit of 64; choose"):
        compare.open_result(tmp_path / "result.json")


def test_published_results_are_within_the_limits():
    for path in RESULT.parents[1].glob("*/result.json"):
        assert compare.too_much(json.loads(path.read_text())) == "", path


def test_titles_are_text(tmp_path):
    result = json.loads(RESULT.read_text())
    result["runs"][0]["title"] = "<script>alert(1)</script>"
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert "<script>" not in compare.open_result(tmp_path / "result.json")


def test_what_ships_is_a_published_result():
    published = Path(__file__).parents[2] / "docs" / "results" / "rate-distortion-64" / "result.json"
    assert compare.SHIPPED.read_bytes() == published.read_bytes()
