"""The processes that train one model together: one per device, started by torchrun, by SLURM, or from here.

torchrun --nproc-per-node 4 ...    all are there, and RANK, WORLD_SIZE, ... say which one this is
srun hybridvq train                all are there, and SLURM_PROCID, SLURM_STEP_NUM_TASKS, ... say so
hybridvq train --devices 4         this is the first, and starts three that run the same command as torchrun would
"""

import atexit
import os
import re
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
    found = find_launched(os.environ)
    if found is None:
        if (num_nodes or 1) > 1 and not all(os.environ.get(name) for name in MAIN):
            raise ConfigError(
                f"num_nodes is {num_nodes}, but the environment does not say how the machines meet; use torchrun or "
                f"srun, or set {', '.join(MAIN)} on each"
            )
        count, nodes = device_count(devices), num_nodes or 1
        return Processes(count, nodes, number(os.environ, "NODE_RANK") * count if nodes > 1 else 0)
    for name, value, actual in (("devices", devices, found.devices), ("num_nodes", num_nodes, found.num_nodes)):
        if isinstance(value, int) and value != actual:
            raise ConfigError(f"{name} is {value}, but {found.launcher} started {actual}; leave it out")
    return found


def is_first() -> bool:
    """Whether the environment says that this is the first process of all, or nothing."""
    with suppress(ConfigError):
        found = find_launched(os.environ)
        return found is None or found.rank == 0
    return True


def find_launched(environment: Mapping[str, str]) -> Processes | None:
    """What torchrun or SLURM say of the processes they started; None where neither did.

    With SLURM only `srun` starts processes, as a step of the job; what else it says is about the job, which the script
    of `sbatch` and the shell of `salloc` are in too. A step of one task, and a shell in a step (`srun --pty bash` names
    the job so), may start processes themselves.

    Raises:
        ConfigError: the variables cannot be used.
    """
    if all(environment.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")):
        rank, size = number(environment, "RANK"), number(environment, "WORLD_SIZE")
        local = number(environment, "LOCAL_WORLD_SIZE", size)
        if not (local and size % local == 0 and rank < size):
            raise ConfigError(f"RANK {rank}, WORLD_SIZE {size} and LOCAL_WORLD_SIZE {local} do not go together")
        return Processes(local, size // local, rank, "torchrun")
    size = number(environment, "SLURM_STEP_NUM_TASKS", 1)
    if size <= 1 or environment.get("SLURM_JOB_NAME") == "bash":
        return None
    nodes = number(environment, "SLURM_STEP_NUM_NODES", 1)
    if not nodes or size % nodes:
        raise ConfigError(f"SLURM started {size} tasks on {nodes} nodes; use --ntasks-per-node")
    return Processes(size // nodes, nodes, number(environment, "SLURM_PROCID"), "slurm")


def number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """The number that a variable holds, or the default of one that is missing or empty.

    Raises:
        ConfigError: it holds something else, or is missing and has no default.
    """
    value = environment.get(name) or default
    if value is None or not str(value).isdecimal():
        raise ConfigError(f"the environment variable {name} is {value or 'empty'}; it must be a number from 0 on")
    return int(value)


def adopt_step() -> None:
    """Say what SLURM says of this process in the words of torchrun, with the first node of the step to meet at."""
    size, nodes = number(os.environ, "SLURM_STEP_NUM_TASKS"), number(os.environ, "SLURM_STEP_NUM_NODES", 1)
    meeting = number(os.environ, "SLURM_JOB_ID", 0) * 10 + number(os.environ, "SLURM_STEP_ID", 0)
    names = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST") or "127.0.0.1"
    os.environ.update(
        {
            "MASTER_ADDR": os.environ.get("MASTER_ADDR") or first_host(names),
            "MASTER_PORT": os.environ.get("MASTER_PORT") or str(15000 + meeting % 10000),
            "RANK": str(number(os.environ, "SLURM_PROCID")),
            "LOCAL_RANK": str(number(os.environ, "SLURM_LOCALID")),
            "GROUP_RANK": str(number(os.environ, "SLURM_NODEID", 0)),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size // nodes),
        }
    )


def first_host(names: str) -> str:
    """The first of hosts written as SLURM does: node[07-09,12],other."""
    first = re.match(r"([^,\s\[]+)(?:\[([^],-]+)[^]]*\])?([^,\s\[]*)", names)
    return "".join(part or "" for part in first.groups()) if first else names


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
                    print(f"hybridvq: {LOST}; continue with --resume", file=sys.stderr, flush=True)
                os._exit(2)

    threading.Thread(target=look, daemon=True).start()
