"""Sums and rows over all processes; what is given, where there is one process.

All of these are collective: every process calls them, in the same order. Each may hold another number of rows or
positions, also none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

ALONE = ContextVar("ALONE", default=False)
KEPT: list[Any] = []  # see `keep_group`


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process counts as the only one. Not collective."""
    before = ALONE.set(True)
    try:
        yield
    finally:
        ALONE.reset(before)


def in_several() -> bool:
    """Whether this is one of several processes."""
    return not ALONE.get() and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank_and_size() -> tuple[int, int]:
    """The rank of this process and the number of all; not collective."""
    return (dist.get_rank(), dist.get_world_size()) if in_several() else (0, 1)


def all_reduce(x: Tensor) -> Tensor:
    """x summed over all processes, in place."""
    if in_several():
        dist.all_reduce(x)
    return x


def average(x: Tensor, count: int | None = None) -> Tensor:
    """x averaged over all processes, alike or each by its `count`; the x of one that counts 0 does not matter.

    Gradients pass, so that each process has those of all the losses together.
    """
    if not in_several():
        return x
    if count is None:
        share = torch.ones((), device=x.device) / dist.get_world_size()
    else:
        own = torch.tensor(float(count), device=x.device)
        x = x.where(own > 0, 0)  # still part of the graph, for the backward pass is collective too
        share = own / all_reduce(own.clone())
    summed: Tensor = Sum.apply(x * share)
    return summed


class Sum(torch.autograd.Function):
    """x summed over all processes. What each loss gains from x, it gains from the x of every process: again a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient.clone(memory_format=torch.contiguous_format))


def all_counts(count: int, device: torch.device) -> list[int]:
    """The `count` of every process, in the order of their ranks."""
    if not in_several():
        return [count]
    counts = [torch.empty((), dtype=torch.long, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(count, device=device))
    return torch.stack(counts).tolist()


def all_gather(x: Tensor) -> Tensor:
    """The rows of x (N, ...) of all processes, in the order of their ranks."""
    if not in_several():
        return x
    counts = all_counts(len(x), x.device)
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def of_first(x: Tensor) -> Tensor:
    """The x of the first process, where rounding may have given each process its own."""
    if not in_several():
        return x
    x = x.contiguous()
    dist.broadcast(x, 0)
    return x


def agree(value: str) -> bool:
    """Whether all processes hold the same value."""
    if not in_several():
        return True
    values: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values.count(value) == len(values)


def barrier() -> None:
    """Return when all processes have come here."""
    agree("")


def keep_group() -> None:
    """Let no destructor of the processes' group run any more, after one was lost within a backward pass.

    It waits, with Python's lock in its hands, for a thread that may be waiting for that lock to give up the tensors of
    a sum that no longer comes. Not collective.
    """
    if dist.is_available() and dist.is_initialized():
        KEPT.append(dist.group.WORLD)


def leave() -> None:
    """Part from the others: afterwards this process is on its own. Not collective."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
