"""Kill a training run at random moments, and see that it ends as if it had not been.

    python -m benchmarks.stress.kills benchmarks/stress/kills.json [--kills 50]

A small run writes a checkpoint every 5 steps. It is killed (SIGKILL) between its start and its 12th checkpoint, at a
moment drawn at random, and started again with `resume`, over and over; then it may finish. Every checkpoint found after
a kill must load, and in the end weights and losses must be those of a run that nobody killed, to the bit.
"""

import argparse
import multiprocessing
import random
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.small import SETTING, run_small, small_recipe
from benchmarks.timing import write_result
from hybridvq.settings import Recipe
from hybridvq.training.folder import CHECKPOINT, read_checkpoint
from hybridvq.training.run import build_tokenizer
from hybridvq.writing import PARTIAL

EVERY = 5  # steps between two checkpoints
LATEST = 12  # checkpoints after which a kill comes at the latest
STEPS = 40  # of the run for each kill: more than the mean number of steps that a kill lets pass


def train_here(recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    run_small(recipe, folder)


def start(recipe: Recipe, folder: Path) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.small"])
    process = context.Process(target=train_here, args=(recipe, folder))
    process.start()
    return process


def kill_once(recipe: Recipe, folder: Path, moments: random.Random) -> dict[str, Any]:
    """Start or resume the run, kill it after some checkpoints and a moment more, and describe what it left."""
    begun, path = time.perf_counter(), folder / CHECKPOINT
    process, checkpoints, seen = start(recipe, folder), moments.randint(0, LATEST), written(path)
    while checkpoints and process.is_alive():
        time.sleep(0.0005)
        if (now := written(path)) != seen:
            checkpoints, seen = checkpoints - 1, now
    time.sleep(moments.uniform(0, 0.1 if written(path) else 1))
    if not process.is_alive():
        raise SystemExit(f"the run ended by itself with exit code {process.exitcode}")
    process.kill()
    process.join()
    in_write = bool(list(path.parent.glob(PARTIAL.format("*"))))
    return {"seconds": round(time.perf_counter() - begun, 2), "in_write": in_write, "step": usable(recipe, path)}


def written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def usable(recipe: Recipe, path: Path) -> int:
    """The step of a checkpoint that loads; 0 where there is none yet."""
    if not path.exists():
        return 0
    checkpoint = read_checkpoint(path)
    weights = {key.removeprefix("tokenizer."): value for key, value in checkpoint["state_dict"].items()}
    build_tokenizer(recipe, 0).load_state_dict(weights)
    history = checkpoint["callbacks"]["Recorder"]
    assert len(history["train_mse"]) == checkpoint["global_step"]
    assert all(value.isfinite().all() for value in weights.values())
    return int(checkpoint["global_step"])


def same_end(a: Path, b: Path) -> bool:
    """Whether two finished runs have the same weights and the same loss at every step."""
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (a, b)]
    losses = [read_checkpoint(folder / CHECKPOINT)["callbacks"]["Recorder"]["train_mse"] for folder in (a, b)]
    return losses[0] == losses[1] and all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def finish(recipe: Recipe, folder: Path) -> None:
    process = start(recipe, folder)
    process.join()
    if process.exitcode:
        raise SystemExit(f"the run in {folder} failed with exit code {process.exitcode}")


def main(path: Path, count: int) -> None:
    recipe, moments = small_recipe(steps=STEPS * count, checkpoint_every=EVERY), random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        finish(recipe, whole)
        kills = [kill_once(recipe, cut, moments) for _ in range(count)]
        finish(recipe, cut)
        same = same_end(whole, cut)
    found = sum(kill["step"] > 0 for kill in kills)
    table = [
        "| kills | checkpoints found, all of which load | kills within the writing of one | the end, to the bit |",
        "|--:|--:|--:|---|",
        f"| {count} | {found} | {sum(kill['in_write'] for kill in kills)} | {'the same' if same else 'ANOTHER'} |",
    ]
    content = {"setting": SETTING, "steps": recipe.training.steps, "checkpoint_every": EVERY, "same": same}
    write_result(path, "benchmarks.stress.kills", content | {"kills": kills}, table, ["--kills", str(count)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    main(arguments.path, arguments.kills)
