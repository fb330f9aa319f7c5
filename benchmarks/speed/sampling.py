"""How much faster a cached sampler draws 64 grids of tokens than the published loop.

    python -m benchmarks.speed.sampling benchmarks/speed/sampling.json

The published loop runs the whole network again at every position. It is timed with the same transformer, and with a
gated PixelCNN of about as many weights, which knows no other way. At 8x8 positions every side draws all tokens; at
32x32 the loop would take an hour, so one of its passes is timed and counted 1,024 times. Untrained weights, gain-shape
tokens of K = 1,024 and L = 8, no classes, one thread.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import in_turn, medians, ratio, write_result
from hybridvq import Tokens, build_prior
from hybridvq.priors import Prior
from hybridvq.quantizers import TokenSpace

IMAGES, CODES, LEVELS, CODE_DIM = 64, 1024, 8, 5
PRIORS: dict[str, dict[str, Any]] = {"transformer": {"width": 128, "layers": 5, "heads": 4}, "pixelcnn": {}}
ROUNDS = {8: 2, 32: 1}


def make(name: str, side: int) -> Prior:
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(CODES, CODE_DIM), dim=1)
    space = TokenSpace(CODES, 1, "levels", torch.linspace(0.5, 4, LEVELS)[None], directions)
    return build_prior(name, space, (side, side), options=PRIORS[name]).eval()


def draw(prior: Prior, side: int, cache: bool) -> Callable[[], object]:
    return lambda: prior.sample(IMAGES, (side, side), generator=torch.Generator().manual_seed(0), cache=cache)


def one_pass(prior: Prior, side: int) -> Callable[[], object]:
    """What the published loop does at each position."""
    tokens = Tokens(
        codes=torch.zeros(IMAGES, 1, side, side, dtype=torch.long), gains=torch.zeros(IMAGES, 1, side, side).long()
    )

    def call() -> None:
        with torch.inference_mode():
            prior.code_logits(prior.context(tokens, None)[:, 0, -1, -1], 0)

    return call


def time_grid(side: int) -> dict[str, Any]:
    priors = {name: make(name, side) for name in PRIORS}
    cached = draw(priors["transformer"], side, cache=True)
    loops = {f"{name}, published loop": prior for name, prior in priors.items()}
    if side == 8:
        times = in_turn({"cached": cached} | {k: draw(v, side, False) for k, v in loops.items()}, ROUNDS[side], 1)
    else:
        times = in_turn({"cached": cached} | {k: one_pass(v, side) for k, v in loops.items()}, ROUNDS[side], 1)
        times = {k: v if k == "cached" else [ms * side**2 for ms in v] for k, v in times.items()}
    weights = {name: sum(p.numel() for p in prior.parameters()) for name, prior in priors.items()}
    return {
        "positions": [side, side],
        "weights": weights,
        "seconds": {name: round(ms / 1e3, 2) for name, ms in medians(times).items()},
        "times_as_fast": {name: ratio(values, times["cached"]) for name, values in times.items() if name != "cached"},
        "loop": "drawn" if side == 8 else f"one pass, {side**2} times",
    }


def main(path: Path) -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    grids = [time_grid(side) for side in ROUNDS]
    table = ["| positions | side | seconds for 64 | cached is so many times as fast |", "|---|---|--:|--:|"]
    for grid in grids:
        shape = "x".join(map(str, grid["positions"]))
        for name, seconds in grid["seconds"].items():
            faster = grid["times_as_fast"].get(name)
            title = "transformer, cached" if name == "cached" else name
            table.append(f"| {shape} | {title} | {seconds:,.1f} | {'' if faster is None else f'{faster:,.0f}'} |")
    said = ", ".join(f"{name} {count / 1e6:.1f} million" for name, count in grids[0]["weights"].items())
    table += ["", f"Weights: {said}. At 32x32 the loop is one pass, counted 1,024 times."]
    content = {"images": IMAGES, "grids": grids, "took_seconds": round(time.perf_counter() - start)}
    write_result(path, "benchmarks.speed.sampling", content, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
