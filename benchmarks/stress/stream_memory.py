"""How much memory streaming takes as the set grows: it must not depend on the number of images.

    python -m benchmarks.stress.stream_memory benchmarks/stress/stream_memory.json

Sets of ten thousand, a hundred thousand and a million PNG files of 16x16 noise, of which few are distinct so that the
disk stays small, are written as 64 parquet files each. One epoch of each is streamed in a fresh process in batches of
128, through a shuffle buffer of 1,000, decoded and cropped as in training.
"""

import io
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.timing import write_result
from hybridvq.data import StreamLoader, open_stream

SETS = [10_000, 100_000, 1_000_000]
SHARDS = 64
DISTINCT = 256
BATCH = 128
SIZE = 16


def write_set(folder: Path, images: int) -> None:
    """Write `images` encoded images in 64 files, and a test image, so that all of those are trained on."""
    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(DISTINCT):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    for shard in range(SHARDS):
        rows = range(shard, images, SHARDS)
        table = pa.table({"image": [{"bytes": encoded[row % DISTINCT], "path": None} for row in rows]})
        pq.write_table(table, folder / f"train-{shard:02}.parquet", row_group_size=100)
    pq.write_table(pa.table({"image": [{"bytes": encoded[0], "path": None}]}), folder / "test.parquet")


def peak_mb() -> float:
    """The most memory this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def stream_set(folder: Path, images: int) -> dict[str, Any]:
    """Stream one epoch, and tell the peak of memory at its first batch and at its end."""
    loader = StreamLoader(open_stream(str(folder), "train", size=SIZE), BATCH, images // BATCH, seed=0)
    before = peak_mb()
    start = time.perf_counter()
    first = 0.0
    for step, x in enumerate(loader):
        assert x.shape == (BATCH, 3, SIZE, SIZE)
        first = first if step else peak_mb()
    seconds = time.perf_counter() - start
    return {
        "images": images,
        "opened_mb": round(before, 1),
        "first_batch_mb": round(first, 1),
        "end_mb": round(peak_mb(), 1),
        "images_per_second": round(images / seconds),
    }


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main(path: Path) -> None:
    sets = []
    for images in SETS:
        with tempfile.TemporaryDirectory() as folder:
            # On Linux a process starts from the peak of the one that starts it, which must therefore stay small.
            in_fresh_process(write_set, Path(folder), images)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            sets.append(in_fresh_process(stream_set, Path(folder), images) | {"disk_mb": round(size / 1e6, 1)})
    table = ["| images | peak memory, opened | first batch | end of the epoch |", "|--:|--:|--:|--:|"]
    table += [
        f"| {s['images']:,} | {s['opened_mb']:.0f} MB | {s['first_batch_mb']:.0f} MB | {s['end_mb']:.0f} MB |"
        for s in sets
    ]
    write_result(path, "benchmarks.stress.stream_memory", {"shards": SHARDS, "batch": BATCH, "sets": sets}, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
