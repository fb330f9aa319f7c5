"""How long the search for the nearest code takes, beside a bare matrix product.

    python -m benchmarks.speed.search benchmarks/speed/search.json

All sides of a case are timed in turn on one thread; the table shows medians of the ratios within a round. The product
is float32 and of the same size, z (N, D) times codes (D, K), and holds the N x K table that the search never builds:
once in memory of its own, as `z @ codes.T` does, and once in memory that is there already.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import in_turn, medians, peak_memory_mib, ratio, write_result
from hybridvq.quantizers import nearest_code
from hybridvq.quantizers.base import SLAB_ELEMENTS, nearest_direction

CASES = [(8192, 512, 64), (8192, 1024, 64), (8192, 8192, 64), (8192, 1024, 5), (8192, 8192, 8), (65536, 1024, 16)]
ROUNDS = 15
RATIOS = {
    "Euclidean": ("product", "euclidean"),
    "angular": ("product", "angular"),
    "Euclidean, product in place": ("product in place", "euclidean"),
}


def sides_of(n: int, k: int, d: int) -> dict[str, Callable[[], object]]:
    """What is timed in a case, by name."""
    torch.manual_seed(0)
    z, codes = torch.randn(n, d), torch.randn(k, d)
    return {
        "product": partial(torch.mm, z, codes.t()),
        "product in place": partial(torch.mm, z, codes.t(), out=torch.empty(n, k)),
        "euclidean": partial(nearest_code, z, codes),
        "angular": partial(nearest_direction, z, codes),
    }


def side(n: int, k: int, d: int, name: str) -> Callable[[], object]:
    return sides_of(n, k, d)[name]


@torch.inference_mode()
def time_case(n: int, k: int, d: int) -> dict[str, Any]:
    times = in_turn(sides_of(n, k, d), ROUNDS)
    return {
        "n": n,
        "k": k,
        "d": d,
        "table_mib": n * k * 4 / 2**20,
        "slab_mib": min(SLAB_ELEMENTS, n * k) * 4 / 2**20,
        "time_ms": medians(times),
        "speed_over_product": {name: ratio(times[a], times[b]) for name, (a, b) in RATIOS.items()},
        "peak_memory_mib": {name: peak_memory_mib(partial(side, n, k, d, name)) for name in ("product", "euclidean")},
    }


def main(path: Path) -> None:
    torch.set_num_threads(1)
    cases = [time_case(*case) for case in CASES]
    names = " | ".join(f"{name}: its speed over the product's" for name in RATIOS)
    table = [f"| N | K | D | {names} | peak memory, product and search |"]
    table.append("|--:|--:|--:|" + "--:|" * (len(RATIOS) + 1))
    for case in cases:
        ratios = " | ".join(f"{value:.2f}" for value in case["speed_over_product"].values())
        memory = " and ".join(f"{value:.0f}" for value in case["peak_memory_mib"].values())
        table.append(f"| {case['n']:,} | {case['k']:,} | {case['d']} | {ratios} | {memory} MiB |")
    write_result(path, "benchmarks.speed.search", {"rounds": ROUNDS, "cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
