"""What the benchmarks rest on: sides take turns, and a ratio is the median over rounds."""

import json

from benchmarks import timing


def test_sides_take_turns_and_the_first_rounds_are_not_counted():
    order = []
    times = timing.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=4)
    assert order == ["a", "b"] * (timing.WARM_UP + 4)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert min(times["a"]) > 0


def test_a_ratio_is_taken_within_each_round():
    assert timing.ratio([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0
    assert timing.medians({"a": [1.0, 20.0, 3.0]}) == {"a": 3.0}


def test_numbers_and_table_are_written_with_their_command(tmp_path, capsys):
    timing.write_result(tmp_path / "x.json", "benchmarks.speed.search", {"rounds": 2}, ["| a |", "|--:|", "| 1 |"])
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["rounds"] == 2
    assert written["command"].startswith("python -m benchmarks.speed.search ")
    assert {"torch", "python"} <= written["versions"].keys()
    assert (tmp_path / "x.md").read_text().startswith("| a |\n|--:|\n| 1 |\n\n`python -m benchmarks.speed.search ")
    assert capsys.readouterr().out == "| a |\n|--:|\n| 1 |\n"
