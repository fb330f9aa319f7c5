"""Runs of a comparison at the same time, each in a process of its own."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch

from hybridvq.comparison.run import open_sets, run_one
from hybridvq.devices import Device
from hybridvq.errors import TrainingError
from hybridvq.settings import DataSettings, Plan, Recipe


def run_parallel(
    todo: list[tuple[Recipe, int]],
    plan: Plan,
    data: DataSettings,
    described: dict[str, Any],
    out: Path,
    say: Callable[[str], None],
    device: Device,
) -> None:
    """`plan.jobs` runs at a time, each in a fresh process with its share of the cores.

    Raises:
        TrainingError: a run had to stop, or its process was killed; runs under way finish, others do not begin.
    """
    threads, others = max(1, torch.get_num_threads() // plan.jobs), set(active_children())
    with ProcessPoolExecutor(
        plan.jobs,
        get_context("spawn"),
        # Ctrl-C reaches every process of the terminal; this one alone answers it.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
        max_tasks_per_child=1,
    ) as pool:
        tasks = {pool.submit(run_in_process, *run, plan, data, described, out, threads, device): run for run in todo}
        try:
            for number, task in enumerate(as_completed(tasks), start=1):
                recipe, seed = tasks[task]
                task.result()
                say(f"[{number}/{len(todo)}] {recipe.title}, seed {seed}: done")
        except BrokenProcessPool as error:
            raise TrainingError(
                "the process of a run was killed, most often because memory ran out; lower --jobs, and the "
                "same command continues from the checkpoints"
            ) from error
        except KeyboardInterrupt:
            for process in set(active_children()) - others:
                process.kill()  # checkpoints are whole at any moment
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run_in_process(
    recipe: Recipe,
    seed: int,
    plan: Plan,
    data: DataSettings,
    described: dict[str, Any],
    out: Path,
    threads: int,
    device: Device,
) -> None:
    torch.set_num_threads(threads)
    run_one(recipe, seed, plan, described, open_sets(data, plan.validation), out, device)
