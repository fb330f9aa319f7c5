"""Time several things against each other in one process, in turn, so that a change of the machine's pace hits all."""

import platform
import resource
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

from hybridvq.comparison.plan import hardware
from hybridvq.documents import to_json
from hybridvq.writing import write_whole

WARM_UP = 3
LINUX = sys.platform == "linux"


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = WARM_UP) -> dict[str, list[float]]:
    """Milliseconds of each side in each round, after `warm_up` rounds that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            if number >= warm_up:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    """The median over rounds of a / b."""
    return round(median(x / y for x, y in zip(a, b, strict=True)), 3)


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: round(median(values), 3) for name, values in times.items()}


def peak_memory_mib(make: Callable[[], Callable[[], object]]) -> float:
    """What building a side and calling it twice adds to the memory of a fresh process that has imported it, in MiB.

    `make` is a function of a module, or a `functools.partial` of one, that returns the call.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return round(pool.submit(_growth_mib, make).result(), 1)


def _growth_mib(make: Callable[[], Callable[[], object]]) -> float:
    torch.set_num_threads(1)
    forget_peak()  # of the imports
    before = peak_mib()
    call = make()
    call()
    call()
    return peak_mib() - before


def forget_peak() -> None:
    """Let `peak_mib` count from here; only Linux can."""
    if LINUX:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_mib() -> float:
    """The most memory that this process has held, in MiB."""
    if not LINUX:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    # Not getrusage, whose peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def write_result(
    path: Path, module: str, content: Mapping[str, Any], table: list[str], words: Sequence[str] = ()
) -> None:
    """Write `content` with its command, versions and machine as JSON, `table` beside it, and print the table."""
    versions = {name: version(name) for name in ("torch", "vector-quantize-pytorch")}
    made = {
        "command": f"python -m {module} {shlex.join([str(path), *words])}",
        "versions": versions | {"python": platform.python_version()},
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }
    write_whole(path, to_json(made | dict(content)))
    threads = f"{made['threads']} thread{'s' if made['threads'] > 1 else ''} of {made['hardware']['name']}"
    page = [*table, "", f"`{made['command']}`, {threads}, torch {versions['torch']}"]
    write_whole(path.with_suffix(".md"), ("\n".join(page) + "\n").encode())
    print(*table, sep="\n")
