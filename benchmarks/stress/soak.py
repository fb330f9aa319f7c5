"""Train for many steps, and see whether memory or the time of a step grows.

    python -m benchmarks.stress.soak benchmarks/stress/soak.json [--steps 10000]

A small run on one thread notes the resident memory (on Linux) and the processor time of its process at each step; the
table shows medians over each tenth of the run and the slope of a straight line through its second half. Checkpoints,
the test measurements and the loss of every step, which a checkpoint keeps, are part of it. Memory is the reliable half:
what else the machine does changes the time that a step takes, even of the processor, and not the memory.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import linear_regression, median

import numpy as np
import torch

from benchmarks.small import BATCH, SETTING, SIZE, run_small, small_recipe
from benchmarks.timing import write_result
from hybridvq.data.photos import PhotoTiles

PARTS = 10


class Noting(PhotoTiles):
    """The sample photographs; the first crop of each training batch notes the time and the memory."""

    def __init__(self) -> None:
        super().__init__("train", SIZE)
        self.crops = 0
        self.times: list[float] = []
        self.memory: list[float] = []

    def crop_at(self, index: int, draw: np.ndarray | None) -> np.ndarray:
        if draw is not None:
            if self.crops % BATCH == 0:
                self.times.append(time.process_time())
                self.memory.append(resident_mib())
            self.crops += 1
        return super().crop_at(index, draw)


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(path: Path, steps: int) -> None:
    torch.set_num_threads(1)
    images = Noting()
    with tempfile.TemporaryDirectory() as folder:
        run_small(small_recipe(steps=steps, checkpoint_every=200), Path(folder) / "run", images)
    length = steps // PARTS
    step_ms = np.diff(images.times) * 1e3
    parts = [
        {
            "last_step": end,
            "memory_mib": round(median(images.memory[end - length : end]), 2),
            "step_ms": round(median(step_ms[end - length : end].tolist()), 2),
        }
        for end in range(length, steps + 1, length)
    ]
    half = parts[PARTS // 2 :]
    thousands = [part["last_step"] / 1000 for part in half]
    slopes = {
        key: linear_regression(thousands, [part[key] for part in half]).slope for key in ("memory_mib", "step_ms")
    }
    table = ["| steps | resident memory, MiB | processor time of a step, ms |", "|--:|--:|--:|"]
    table += [f"| to {p['last_step']:,} | {p['memory_mib']:.1f} | {p['step_ms']:.1f} |" for p in parts]
    table.append(f"| slope for 1,000 steps, second half | {slopes['memory_mib']:+.2f} | {slopes['step_ms']:+.2f} |")
    content = {"setting": SETTING, "steps": steps, "parts": parts, "slope_per_1000_steps": slopes}
    write_result(path, "benchmarks.stress.soak", content, table, ["--steps", str(steps)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    main(arguments.path, arguments.steps)
