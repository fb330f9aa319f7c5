"""How long a training step of the published network takes, beside plain PyTorch and beside the processor's own rate.

    python -m benchmarks.speed.published benchmarks/speed/published.json

Width 256 as published, and 128; batches of 128 images of 32x32. `plain` is the network and loss as such code is usually
written (see `plain.py`). The rate of a step is its floating-point operations, as PyTorch counts those of convolutions
and products, over its time; the peak is that of a bfloat16 product of two matrices of 2048x2048. All in turn, in one
process, on all threads.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.plain import plain_step
from benchmarks.speed.steps import training_step
from benchmarks.timing import in_turn, medians, peak_memory_mib, ratio, write_result

DIMS = (256, 128)
ROUNDS = 10
PRODUCT = 2048  # rows and columns of the matrices whose product is the peak


def images() -> Tensor:
    return torch.rand(128, 3, 32, 32) * 2 - 1


def make_plain(dim: int) -> Callable[[], None]:
    return plain_step(dim, images())


def make_ours(dim: int) -> Callable[[], None]:
    return training_step("vector", **{"model.dim": dim})[1]


def product() -> Callable[[], Tensor]:
    """A square bfloat16 matrix product into memory that is there already."""
    a, b, out = (torch.randn(PRODUCT, PRODUCT, dtype=torch.bfloat16) for _ in range(3))
    return partial(torch.mm, a, b, out=out)


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of one call."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def time_dim(dim: int) -> dict[str, Any]:
    torch.manual_seed(0)
    sides = {"plain": make_plain(dim), "ours": make_ours(dim), "product": product()}
    flops = operations(sides["ours"])
    times = in_turn(sides, ROUNDS)
    in_products = flops / (2 * PRODUCT**3)  # the step's operations, in products
    return {
        "dim": dim,
        "gflops": flops / 1e9,
        "time_ms": medians(times),
        "faster_than_plain": ratio(times["plain"], times["ours"]),
        "share_of_peak": ratio([in_products * value for value in times["product"]], times["ours"]),
        "peak_memory_mib": {
            "plain": peak_memory_mib(partial(make_plain, dim)),
            "ours": peak_memory_mib(partial(make_ours, dim)),
        },
    }


def main(path: Path) -> None:
    cases = [time_dim(dim) for dim in DIMS]
    table = [
        "| width | times as fast as plain PyTorch | share of the bfloat16 peak | peak memory, plain and ours |",
        "|--:|--:|--:|--:|",
    ]
    for case in cases:
        memory = case["peak_memory_mib"]
        table.append(
            f"| {case['dim']} | {case['faster_than_plain']:.2f} | {case['share_of_peak']:.0%} "
            f"| {memory['plain']:.0f} and {memory['ours']:.0f} MiB |"
        )
    write_result(path, "benchmarks.speed.published", {"rounds": ROUNDS, "cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
