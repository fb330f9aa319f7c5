"""Time several things against each other in one process, in turn, so that a change of the machine's pace hits all."""

import json
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from hybridvq.compare.comparison import hardware
from hybridvq.writing import write_whole

WARM_UP = 3


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each side in each round, after three rounds that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(WARM_UP + rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            if number >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    """The median over rounds of a / b."""
    return round(median(x / y for x, y in zip(a, b, strict=True)), 3)


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: round(median(values), 3) for name, values in times.items()}


def write_result(
    path: Path, module: str, content: Mapping[str, Any], table: list[str], words: Sequence[str] = ()
) -> None:
    """Write `content` with its command, versions and machine as JSON, `table` beside it, and print the table."""
    versions = {name: version(name) for name in ("torch", "vector-quantize-pytorch")}
    made = {
        "command": f"python -m benchmarks.{module} {shlex.join([str(path), *words])}",
        "versions": versions | {"python": platform.python_version()},
        "hardware": hardware(),
        "threads": 1,
    }
    write_whole(path, (json.dumps(made | dict(content), indent=1) + "\n").encode())
    page = [*table, "", f"`{made['command']}`, one thread of {made['hardware']['name']}, torch {versions['torch']}"]
    write_whole(path.with_suffix(".md"), ("\n".join(page) + "\n").encode())
    print(*table, sep="\n")
