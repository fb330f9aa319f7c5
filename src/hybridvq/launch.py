"""The processes that train one model together: one a device, started by torchrun, by SLURM, or from here.

torchrun --nproc-per-node 4 ...    all are there, and RANK, WORLD_SIZE, ... say which one this is
srun hybridvq train                all are there, and SLURM_PROCID, SLURM_NTASKS, ... say so
hybridvq train --devices 4         this is the first, and starts three that run the same command as torchrun would
"""

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from hybridvq.errors import ConfigError

PARENT = "HYBRIDVQ_PARENT"  # to those started from here, the process that did
MAIN = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
GRACE = 5.0  # seconds in which the others notice by themselves that a process is gone
LOST = "another process of this run stopped, and this one with it"


@dataclass(frozen=True)
class Processes:
    """All processes of a run, and which one this is.

    Attributes:
        devices: processes on each machine.
        num_nodes: machines.
        rank: number of this process, from 0.
        launcher: what started them; None where that is still to be done.
    """

    devices: int = 1
    num_nodes: int = 1
    rank: int = 0
    launcher: Literal["torchrun", "slurm"] | None = None

    @property
    def world_size(self) -> int:
        return self.devices * self.num_nodes


def find_processes(devices: int | Literal["auto"] | None = None, num_nodes: int | None = None) -> Processes:
    """The processes that a launcher started, or those to start: `devices` (auto: every GPU) on each of `num_nodes`.

    Raises:
        ConfigError: the numbers cannot be had, or contradict the launcher's.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    found = launched(os.environ)
    if found is None:
        if (num_nodes or 1) > 1 and not all(name in os.environ for name in MAIN):
            raise ConfigError(
                f"num_nodes is {num_nodes}, but the environment does not say how the machines meet; use torchrun or "
                f"srun, or set {', '.join(MAIN)} on each"
            )
        count, nodes = device_count(devices), num_nodes or 1
        return Processes(count, nodes, int(os.environ["NODE_RANK"]) * count if nodes > 1 else 0)
    for name, value, actual in (("devices", devices, found.devices), ("num_nodes", num_nodes, found.num_nodes)):
        if isinstance(value, int) and value != actual:
            raise ConfigError(f"{name} is {value}, but {found.launcher} started {actual}; leave it out")
    return found


def is_first() -> bool:
    """Whether the environment says that this is the first process of all, or nothing."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


def launched(environment: Mapping[str, str]) -> Processes | None:
    """What torchrun or SLURM say of the processes they started; None where neither did.

    A single task of SLURM, and a shell within it (a job named bash or interactive), may start processes themselves.
    """
    if all(name in environment for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")):
        size = int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_WORLD_SIZE", size))
        return Processes(local, size // local, int(environment["RANK"]), "torchrun")
    if "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(environment.get("SLURM_NNODES", 1))
        size = int(environment.get("SLURM_NTASKS", 1))
        if size == 1:
            return None
        if size % nodes:
            raise ConfigError(f"SLURM started {size} tasks on {nodes} nodes; use --ntasks-per-node")
        return Processes(size // nodes, nodes, int(environment["SLURM_PROCID"]), "slurm")
    return None


def device_count(devices: int | Literal["auto"] | None) -> int:
    """How many processes this machine is asked for, and can have.

    Raises:
        ConfigError: it has fewer GPUs.
    """
    if devices is None or devices == 1:
        return 1
    import torch

    gpus = torch.cuda.device_count()
    if devices == "auto":
        return max(gpus, 1)
    if gpus and devices > gpus:
        raise ConfigError(f"devices is {devices}, but this machine has {gpus} GPUs; give at most {gpus}, or auto")
    if not gpus and torch.backends.mps.is_available():
        raise ConfigError(f"devices is {devices}, but Apple's GPU is one device; leave it out")
    return devices


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """Inside, the other processes of this machine run the same command, unless a launcher has started them.

    Where one that was started here dies, the rest is told by their broken connections. A process that is not, for it
    waits in a library or works by itself, is ended some seconds later, with exit code 2 and one sentence.
    """
    others = start(processes) if processes.launcher is None and processes.world_size > 1 else []
    parent = os.environ.get(PARENT)
    done = threading.Event()
    if others:
        guard(lambda: any(other.poll() for other in others), done)
    elif parent:
        guard(lambda: os.getppid() != int(parent), done)
    try:
        yield
    except BaseException:
        done.set()
        for other in others:
            with suppress(subprocess.TimeoutExpired):
                other.wait(GRACE)
            other.kill()
            other.wait()
        raise
    finally:
        done.set()


def start(processes: Processes) -> list[subprocess.Popen[bytes]]:
    """Start the other processes of this machine with the environment that torchrun would give them, and take on ours.

    Raises:
        ConfigError: this is an interactive session, which cannot be started again.
    """
    if hasattr(sys, "ps1"):
        raise ConfigError("several devices need a script or the command line; an interactive session has one")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common = (address if processes.num_nodes == 1 else {}) | {
        "WORLD_SIZE": str(processes.world_size),
        "LOCAL_WORLD_SIZE": str(processes.devices),
        "GROUP_RANK": str(processes.rank // processes.devices),
    }
    command = [sys.executable, *sys.orig_argv[1:]]
    others = []
    for local_rank in range(1, processes.devices):
        ranks = {"RANK": str(processes.rank + local_rank), "LOCAL_RANK": str(local_rank), PARENT: str(os.getpid())}
        others.append(subprocess.Popen(command, env=os.environ | common | ranks))
    os.environ.update(common | {"RANK": str(processes.rank), "LOCAL_RANK": "0"})
    for other in others:
        atexit.register(other.wait)
    return others


def free_port() -> int:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return int(connection.getsockname()[1])


def guard(lost: Callable[[], bool], done: threading.Event) -> None:
    """End this process if another is `lost` and GRACE seconds later this is still not `done`."""

    def look() -> None:
        while not done.wait(0.5):
            if lost() and not done.wait(GRACE):
                with suppress(OSError):  # whoever started this may have closed its pipe
                    print(f"hybridvq: {LOST}; go on with --resume", file=sys.stderr, flush=True)
                os._exit(2)

    threading.Thread(target=look, daemon=True).start()
