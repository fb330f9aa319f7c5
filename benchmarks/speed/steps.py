"""How long a training step takes with each quantizer, as a multiple of the plain VQ-VAE's.

    python -m benchmarks.speed.steps benchmarks/speed/steps.json

Every recipe trains the network of the published tables (width 64, 128 images of 32x32, the precision of its recipe) on
random images; a step of each is timed in turn on one thread, and the table shows medians of the ratios within a round.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import experiments.rivals  # noqa: F401, makes its quantizers known
import torch
from torch.nn import functional as F

from benchmarks.timing import in_turn, medians, ratio, write_result
from hybridvq.recipe import load_recipe
from hybridvq.training.engine import resolve_precision
from hybridvq.training.run import build_tokenizer

RIVALS = sorted(map(str, (Path(__file__).parents[2] / "experiments" / "recipes").glob("*.yaml")))
RECIPES = ["vector", "projected", "gain-shape", "gain-shape-float", *RIVALS]
ROUNDS = 10


def training_step(name: str, **overrides: Any) -> tuple[str, Callable[[], None]]:
    """The title of a recipe, and one step of it on 128 random images of 32x32."""
    recipe = load_recipe(name, overrides)
    tokenizer = build_tokenizer(recipe, seed=0)
    optimizer = torch.optim.Adam(tokenizer.parameters(), recipe.training.learning_rate, fused=True)
    mixed = resolve_precision(recipe.training.precision) == "bf16-mixed"
    x = (torch.rand(128, 3, 32, 32) * 2 - 1).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            result = tokenizer(x)
        loss = F.mse_loss(result.x_hat.float(), x) + sum(result.quantized.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return recipe.title, step


def main(path: Path) -> None:
    torch.set_num_threads(1)
    steps = dict(training_step(name) for name in RECIPES)
    times = in_turn(steps, ROUNDS)
    vq_vae, *_ = times.values()
    ratios = {title: ratio(values, vq_vae) for title, values in times.items()}
    table = ["| recipe | time of a step / VQ-VAE's |", "|---|--:|"]
    table += [f"| {title} | {value:.2f} |" for title, value in ratios.items()]
    write_result(
        path, "benchmarks.speed.steps", {"rounds": ROUNDS, "time_ms": medians(times), "over_vq_vae": ratios}, table
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
