"""The report's own setting: both published recipes at width 256, 39,100 steps of CIFAR-10, in float32 without TF32.

    python -m experiments.gpu.report --data cifar10 --out OUT --minutes 9 --device cuda

Trains the recipes one after another and writes, after each, OUT/result.json, which `experiments.publish` makes a page
of, and the models in half precision. When the time is up it stops, and exits with 3; the same command goes on from the
last checkpoint, under OUT/runs. Needs torch, lightning, tensorboard and pyarrow, but no command line of hybridvq.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hybridvq import compare
from hybridvq.half import save_half
from hybridvq.settings import Plan

RECIPES = ("projected-published", "vector-published")
STOPPED = 3  # exit status


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    begun, out = time.monotonic(), Path(arguments.out)
    exact_float32()
    stop_after(60 * arguments.minutes)
    try:
        for count in range(1, len(arguments.recipes) + 1):
            train_and_write(arguments, arguments.recipes[:count], out)
    except KeyboardInterrupt as stop:
        print(f"stopped after {time.monotonic() - begun:.0f} s: {stop}", flush=True)
        return STOPPED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"done after {time.monotonic() - begun:.0f} s", flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="what `hybridvq train --data` takes")
    made.add_argument("--out", required=True, help="folder of the runs and of what comes back")
    made.add_argument("--recipes", nargs="+", default=list(RECIPES))
    made.add_argument("--width", type=int, default=256, help="of the networks")
    made.add_argument("--steps", type=int, default=39100)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--minutes", type=float, default=9.0, help="after which training stops")
    made.add_argument("--device", default="auto", help="such as cpu or cuda")
    return made


def exact_float32() -> None:
    """Let no product be rounded to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def stop_after(seconds: float) -> None:
    """Interrupt what runs then, as Ctrl-C does."""
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def train_and_write(arguments: argparse.Namespace, recipes: list[str], out: Path) -> None:
    """Train what is not trained yet of these recipes, and write what comes back."""
    every = max(1, arguments.steps // 80)
    overrides: dict[str, Any] = {"model.dim": arguments.width, "training.checkpoint_every": 4 * every}
    plan = Plan(recipes, [arguments.seed], steps=arguments.steps, eval_every=every, overrides=overrides)
    command = f"python -m experiments.gpu.report --data PATH_OR_HUB_ID --width {arguments.width}"
    result = compare(plan, arguments.data, out, command, device=arguments.device, size=32)
    for run in result["runs"]:
        model = out / f"{run['recipe']}-half"
        shutil.rmtree(model, ignore_errors=True)
        save_half(out / "runs" / f"{run['recipe']}-seed{arguments.seed}", model)
        print(f"{run['recipe']}: test MSE {run['test_mse']:.4f}, {run['images_per_second']:.0f} images/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
