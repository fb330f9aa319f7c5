import io
import math
import re

import pytest
from rich.console import Console

from hybridvq.errors import ConfigError
from hybridvq.report import markdown_table, print_table
from hybridvq.report.result import Stat, gather
from hybridvq.report.table import COLUMNS, cells, format_stat

HEADS = [column.key for column in COLUMNS]


def test_markdown_of_two_groups(run, result_of):
    runs = [
        run("a", "published", 0, test_mse=0.02),
        run("a", "published", 1, test_mse=0.04),
        run("b", "healthy"),
    ]
    lines = markdown_table(result_of(runs)).splitlines()
    assert lines[0].startswith("| Recipe | Seeds | Bits per position (raw) | Bits per pixel (raw) |")
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 3}
    assert lines[2].startswith("| *published* |  |")
    assert lines[3] == (
        "| **A**<br>What a is. | 2 | 3.0 | 0.188 | 0.156 | 0.0300 ± 0.0141 | 20.00 | 0.700 "
        "| 6 of 8 | 2.50 | 1.2 | 900 | 0.40 |"
    )
    assert lines[4].startswith("| *healthy* |")
    assert "| 1 | 3.0 |" in lines[5]


def test_markdown_shows_text_as_it_is(run, result_of):
    table = markdown_table(result_of([run("a", "g", title="<b> | *x*\nK_1")]))
    assert r"**&lt;b&gt; \| \*x\*\\nK\_1**" in table


def test_terminal_table_fits_and_states_bits(run, result_of):
    runs = [run("vector-[bold]", "healthy", seed, test_mse=mse) for seed, mse in enumerate((0.02, 0.04))]
    console = Console(file=io.StringIO(), width=80)
    print_table(result_of(runs), console)
    text = console.file.getvalue()
    assert "Vector [bold]" in text
    assert re.search(r"3\.0 +0\.0300 +20\.00 +6 of 8", text)


def test_markdown_of_something_else():
    with pytest.raises(ConfigError):
        markdown_table({"schema": 1})


@pytest.mark.parametrize("missing", [None, math.nan])
def test_missing_values_are_a_dash(run, result_of, missing):
    recipes = gather(result_of([run("a", "healthy", **dict.fromkeys(HEADS, missing))]))
    assert [cell.text for cell in cells(recipes[0], recipes)] == ["–"] * len(COLUMNS)


def test_a_seed_without_a_value_is_counted_and_cannot_win(run, result_of):
    runs = [
        run("a", "healthy", 0, test_mse=0.001),
        run("a", "healthy", 1, test_mse=None),
        run("b", "healthy", test_mse=0.03),
        run("c", "healthy"),
    ]
    recipes = gather(result_of(runs))
    mse = [cells(recipe, recipes)[HEADS.index("test_mse")] for recipe in recipes]
    assert (mse[0].text, mse[0].remark) == ("0.00100", "1 of 2 seeds")
    assert [cell.best for cell in mse] == [False, True, False]


def test_the_reference_is_never_best_and_ties_are_all_best(run, result_of):
    runs = [
        run("a", "healthy", test_ssim=0.7),
        run("b", "healthy", test_ssim=0.9),
        run("c", "healthy", test_ssim=0.9),
        run("i", "continuous reference", test_ssim=1.0),
    ]
    recipes = gather(result_of(runs))
    best = [cells(recipe, recipes)[HEADS.index("test_ssim")].best for recipe in recipes]
    assert best == [False, True, True, False]


def test_a_value_that_all_share_is_not_best(run, result_of):
    recipes = gather(result_of([run("a", "healthy"), run("b", "healthy")]))
    assert not any(cell.best for recipe in recipes for cell in cells(recipe, recipes))


def test_spread_too_small_for_its_decimals():
    assert format_stat(Stat.of([0.5, 0.50001]), 3) == ("0.500", "± <0.001")
