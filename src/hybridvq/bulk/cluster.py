"""Shards made by actors of Ray Data, on this machine or a cluster; the only module that imports ray."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hybridvq import errors
from hybridvq.bulk.shards import Job, ShardMaker
from hybridvq.errors import ConfigError, HybridVQError
from hybridvq.extras import lacking


class Actor:
    """A worker of the cluster; a failure the user can mend is a result, for Ray would wrap it in its own traces."""

    def __init__(self, job: Job, device: str) -> None:
        self.job, self.device = job, device
        self.maker: ShardMaker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        images, kind, failure = 0, "", ""
        try:
            self.maker = self.maker or ShardMaker(self.job, self.device)
            images = sum(self.maker(int(shard)) for shard in batch["shard"])
        except HybridVQError as error:
            kind, failure = type(error).__name__, str(error)
        return {"images": [images], "kind": [kind], "failure": [failure]}


def make_shards(job: Job, todo: list[int], workers: int | None, address: str | None) -> Iterator[int]:
    """Make the shards `todo` and give the number of images of each as it is finished.

    The model, the images and the folder of the shards must be at the same paths on every machine. Ray itself starts
    lost actors again, and they make their shards again.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at `address`.
        HybridVQError: a shard cannot be made; finished shards stay.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError:
        raise lacking("ray") from None
    with connect(address or os.environ.get("RAY_ADDRESS"), workers) as resources:
        quiet = ray.data.DataContext.get_current()
        quiet.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        gpus = int(resources.get("GPU", 0))
        size = min(len(todo), workers or gpus or int(resources.get("CPU", 1)))
        # From items rather than a range: reading a range takes a core of its own, and actors may hold all of them.
        shards = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo))
        results = shards.map_batches(
            Actor,
            fn_constructor_args=(job, "cuda" if gpus else "cpu"),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        try:
            for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
                yield from outcome(batch)
        except ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise HybridVQError(
                f"Ray could not make every shard ({reason}); the same command continues from the finished ones"
            ) from error


def outcome(batch: dict[str, Any]) -> Iterator[int]:
    for images, kind, failure in zip(batch["images"], batch["kind"], batch["failure"], strict=True):
        if kind:
            raise getattr(errors, kind)(failure)
        yield int(images)


@contextmanager
def connect(address: str | None, workers: int | None) -> Iterator[dict[str, float]]:
    """What the cluster at `address` has, or a Ray of this machine's own that ends with the call."""
    import ray

    begun = not ray.is_initialized()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if begun and address:
            ray.init(address, **options)
        elif begun:
            ray.init("local", num_cpus=workers, include_dashboard=False, **options)
    except Exception as error:  # connections, addresses and time limits each fail in their own way, some as Exception
        ray.shutdown()
        reason = " ".join(str(error).split())[:200]
        where = f"the Ray cluster at {address} does not answer" if address else "Ray does not start on this machine"
        raise ConfigError(f"{where} ({reason}); check --address, or use --engine local") from error
    try:
        yield ray.cluster_resources()
    finally:
        if begun:
            ray.shutdown()
