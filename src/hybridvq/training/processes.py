"""One process of several, as Lightning and the user see it."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.callbacks import Callback

from hybridvq import distributed
from hybridvq.errors import ConfigError, LostProcessError
from hybridvq.launch import LOST, Processes, adopt_step, together

PATIENCE = timedelta(minutes=5)  # with processes that do not come


def environment(processes: Processes) -> ClusterEnvironment:
    """Where Lightning reads ranks; never left to it, for it counts any job of SLURM as several processes."""
    return LightningEnvironment() if processes.world_size == 1 else TorchElasticEnvironment()


class OneOfSeveral(Callback):
    """Sees to it that all processes train the same thing, and that each can be stopped.

    Lightning answers SIGTERM with a broadcast from within the signal handler, which meets whatever the others are at.
    """

    def __init__(self, run: str) -> None:
        self.run, self.answer = run, signal.getsignal(signal.SIGTERM)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not distributed.agree(self.run):
            raise ConfigError(
                "the processes of this run differ in recipe, seed or images, or in the checkpoint they find; start all "
                "of them with the same command, and give an --out that all machines share"
            )

    def on_train_start(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self.answer if callable(self.answer) else terminate)


def terminate(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def join(processes: Processes, checkpoint: Path, device: torch.device) -> Iterator[None]:
    """All processes of a run from its first step to its model; afterwards each is on its own again.

    They meet in the way of the kind of `device`.

    Raises:
        LostProcessError: another one stopped, or does not come.
    """
    with together(processes):
        try:
            meet(processes, device)
            yield
            distributed.barrier()
        except RuntimeError as error:
            if not of_connection(error):
                raise
            distributed.keep_group()
            advice = (
                "continue with --resume" if checkpoint.exists() else "no checkpoint was written yet, so start again"
            )
            raise LostProcessError(f"{LOST}; see what it says, and {advice}") from error
        finally:
            distributed.leave()


def meet(processes: Processes, device: torch.device) -> None:
    """Connect with the other processes, for which Lightning would wait half an hour without a word.

    Raises:
        LostProcessError: they do not come.
    """
    if processes.world_size == 1:
        return
    if processes.launcher == "slurm":
        adopt_step()
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise LostProcessError(
            f"the {processes.world_size} processes of this run did not meet within {PATIENCE.seconds} seconds "
            f"({reason(error)}); start all of them, and check MASTER_ADDR and MASTER_PORT"
        ) from error
    # What is waited for later may be a measurement of the first.
    store.set_timeout(dist.default_pg_timeout)
    dist.distributed_c10d._set_pg_timeout(dist.default_pg_timeout)


def of_connection(error: RuntimeError) -> bool:
    """Whether a collective failed, rather than this process; gloo tells by plain RuntimeErrors that name its files."""
    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def reason(error: Exception) -> str:
    return re.split(r"[.\n]", str(error), maxsplit=1)[0]
