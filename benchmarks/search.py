"""How long the search for the nearest code takes, beside a bare matrix product and vector-quantize-pytorch.

    python -m benchmarks.search benchmarks/search.json

All sides of a case are timed in turn on one thread; the table shows medians of the ratios within a round. `search` is
the search alone over a matrix product of the same size, z (N, D) times codes (D, K), which holds the N x K table that
the search never builds. `layer` is a whole quantizer in evaluation mode, which is what vector-quantize-pytorch offers
to time.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from vector_quantize_pytorch import VectorQuantize

from benchmarks.timing import in_turn, medians, ratio, write_result
from hybridvq import GainShapeQuantizer, VectorQuantizer
from hybridvq.quantizers import nearest_code
from hybridvq.quantizers.base import SLAB_ELEMENTS, nearest_direction

CASES = [(8192, 512, 64), (8192, 512, 8), (8192, 8192, 8), (65536, 1024, 16)]  # N, K, D
ROUNDS = 15
RATIOS = {
    "Euclidean search / product": ("euclidean search", "product"),
    "angular search / product": ("angular search", "product"),
    "Euclidean layer / theirs": ("euclidean layer", "their euclidean layer"),
    "angular layer / theirs": ("angular layer", "their angular layer"),
}


def sides_of(n: int, k: int, d: int) -> dict[str, Callable[[], object]]:
    """What is timed in a case, by name."""
    torch.manual_seed(0)
    z, codes = torch.randn(n, d), torch.randn(k, d)
    grid = z.t().reshape(1, d, n // 64, 64).contiguous()
    theirs = [VectorQuantize(d, codebook_size=k, use_cosine_sim=angular).eval() for angular in (False, True)]
    return {
        "product": partial(torch.mm, z, codes.t()),
        "euclidean search": partial(nearest_code, z, codes),
        "angular search": partial(nearest_direction, z, codes),
        "euclidean layer": partial(VectorQuantizer(d, k).eval(), grid),
        "angular layer": partial(GainShapeQuantizer(d, k, levels=None).eval(), grid),
        "their euclidean layer": partial(theirs[0], z[None]),
        "their angular layer": partial(theirs[1], z[None]),
    }


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
        "ratios": {name: ratio(times[a], times[b]) for name, (a, b) in RATIOS.items()},
    }


def main(path: Path) -> None:
    torch.set_num_threads(1)
    cases = [time_case(*case) for case in CASES]
    table = ["| N | K | D | " + " | ".join(RATIOS) + " |", "|--:|--:|--:|" + "--:|" * len(RATIOS)]
    for case in cases:
        ratios = " | ".join(f"{value:.2f}" for value in case["ratios"].values())
        table.append(f"| {case['n']:,} | {case['k']:,} | {case['d']} | {ratios} |")
    write_result(path, "search", {"rounds": ROUNDS, "cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
