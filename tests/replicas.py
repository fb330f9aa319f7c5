"""Run something in two processes at once, as torchrun would start them."""

import multiprocessing
import os

import torch

from hybridvq.launch import free_port

TIMEOUT = 300


def context():
    """Processes that start with everything imported."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["hybridvq.training", "tiny"])
    return made


def in_two(target, *args):
    """Call target(rank, *args) in two processes and return their exit codes."""
    port = free_port()
    processes = [context().Process(target=as_rank, args=(rank, port, target, *args)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
        process.kill()
    return [process.exitcode for process in processes]


def as_rank(rank, port, target, *args):
    local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in local.items()} | {"OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    target(rank, *args)
