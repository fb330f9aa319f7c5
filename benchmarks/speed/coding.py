"""How long an image of 512x768 takes to tokens and back, beside the same arithmetic as matrix products.

    python -m benchmarks.speed.coding benchmarks/speed/coding.json

The untrained `gain-shape` recipe at widths 64 and 128, float32, evaluation mode, all threads. A share of 100% would be
the floating-point operations of the call, as PyTorch counts those of convolutions and products, at the rate of a
float32 product of two matrices of 2048x2048.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.published import PRODUCT, operations
from benchmarks.timing import in_turn, medians, peak_memory_mib, ratio, write_result
from hybridvq.recipe import load_recipe
from hybridvq.training.run import build_tokenizer

DIMS = (64, 128)
HEIGHT, WIDTH = 512, 768
ROUNDS = 10


def make(dim: int, which: str) -> Callable[[], object]:
    """A call that encodes, or decodes, one image."""
    tokenizer = build_tokenizer(load_recipe("gain-shape", {"model.dim": dim}), seed=0).eval()
    x = (torch.rand(1, 3, HEIGHT, WIDTH) * 2 - 1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        tokens = tokenizer.encode(x)
    call = partial(tokenizer.encode, x) if which == "encode" else partial(tokenizer.decode, tokens)
    return torch.inference_mode()(call)


def time_dim(dim: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    a, b, out = (torch.randn(PRODUCT, PRODUCT) for _ in range(3))
    sides = {"encode": make(dim, "encode"), "decode": make(dim, "decode"), "product": partial(torch.mm, a, b, out=out)}
    in_products = {which: operations(sides[which]) / (2 * PRODUCT**3) for which in ("encode", "decode")}
    times = in_turn(sides, ROUNDS)
    return [
        {
            "dim": dim,
            "call": which,
            "time_ms": medians(times)[which],
            "share_of_peak": ratio([share * value for value in times["product"]], times[which]),
            "peak_memory_mib": peak_memory_mib(partial(make, dim, which)),
        }
        for which, share in in_products.items()
    ]


def main(path: Path) -> None:
    cases = [case for dim in DIMS for case in time_dim(dim)]
    table = ["| width | call | share of the float32 peak | ms | peak memory |", "|--:|---|--:|--:|--:|"]
    for case in cases:
        table.append(
            f"| {case['dim']} | {case['call']} | {case['share_of_peak']:.0%} | {case['time_ms']:.0f} "
            f"| {case['peak_memory_mib']:.0f} MiB |"
        )
    write_result(path, "benchmarks.speed.coding", {"rounds": ROUNDS, "image": [HEIGHT, WIDTH], "cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
