"""How long a whole quantizer takes, forward and backward, beside vector-quantize-pytorch's at the same settings.

    python -m benchmarks.speed.layers benchmarks/speed/layers.json

Training mode, N = 8,192 vectors of D = 64, codes by moving average, float32, one thread, each in the memory layout it
asks for: (B, D, h, w) in channels_last here, (B, h w, D) there. Euclidean: `VectorQuantizer` beside `VectorQuantize`;
angular: `GainShapeQuantizer` with a float gain beside `VectorQuantize(use_cosine_sim=True)`.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from benchmarks.timing import in_turn, medians, peak_memory_mib, ratio, write_result
from hybridvq import GainShapeQuantizer, VectorQuantizer

N, D, SIZES = 8192, 64, (512, 1024, 8192)
ROUNDS = 10
SIDES = ("Euclidean", "angular")


def ours(side: str, k: int) -> Callable[[], None]:
    """One pass forward and backward of our layer."""
    euclidean = side == "Euclidean"
    layer = VectorQuantizer(D, k, learn="ema") if euclidean else GainShapeQuantizer(D, k, levels=None)
    z = torch.randn(N // 64, D, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()

    def call() -> None:
        quantized = layer(z)
        (quantized.z_hat.sum() + sum(quantized.losses.values())).backward()
        z.grad = None

    return call


def theirs(side: str, k: int) -> Callable[[], None]:
    """One pass forward and backward of theirs."""
    layer: nn.Module = VectorQuantize(D, codebook_size=k, use_cosine_sim=side == "angular")
    z = torch.randn(N // 64, 64, D, requires_grad=True)

    def call() -> None:
        z_hat, _, losses = layer(z)
        (z_hat.sum() + losses.sum()).backward()
        z.grad = None

    return call


def time_size(k: int) -> dict[str, Any]:
    torch.manual_seed(0)
    makers = {(who.__name__, side): partial(who, side, k) for side in SIDES for who in (ours, theirs)}
    times = in_turn({f"{who}, {side}": make() for (who, side), make in makers.items()}, ROUNDS)
    return {
        "k": k,
        "time_ms": medians(times),
        "times_as_fast": {side: ratio(times[f"theirs, {side}"], times[f"ours, {side}"]) for side in SIDES},
        "peak_memory_mib": {f"{who}, {side}": peak_memory_mib(make) for (who, side), make in makers.items()},
    }


def main(path: Path) -> None:
    torch.set_num_threads(1)
    cases = [time_size(k) for k in SIZES]
    table = ["| K | " + " | ".join(f"{side}: times as fast | peak memory, theirs and ours" for side in SIDES) + " |"]
    table.append("|--:|" + "--:|--:|" * len(SIDES))
    for case in cases:
        memory = case["peak_memory_mib"]
        cells = [
            f"{case['times_as_fast'][side]:.1f} | {memory[f'theirs, {side}']:.0f} and {memory[f'ours, {side}']:.0f} MiB"
            for side in SIDES
        ]
        table.append(f"| {case['k']:,} | " + " | ".join(cells) + " |")
    write_result(path, "benchmarks.speed.layers", {"rounds": ROUNDS, "n": N, "d": D, "cases": cases}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
