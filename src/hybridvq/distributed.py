"""Sums and rows over all processes; what is given, where there is one process.

All of these are collective: every process calls them, in the same order, with tensors of the same shape.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def in_several() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def place() -> tuple[int, int]:
    """The rank of this process and the number of all; not collective."""
    return (dist.get_rank(), dist.get_world_size()) if in_several() else (0, 1)


def total(x: Tensor) -> Tensor:
    """x summed over all processes, in place."""
    if in_several():
        dist.all_reduce(x)
    return x


def average(x: Tensor) -> Tensor:
    """x averaged over all processes; gradients pass, so that each process has those of all the losses together."""
    if not in_several():
        return x
    summed: Tensor = Sum.apply(x)
    return summed / dist.get_world_size()


class Sum(torch.autograd.Function):
    """x summed over all processes. What each loss gains from x, it gains from the x of every process: again a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient.clone(memory_format=torch.contiguous_format))


def gather(x: Tensor) -> Tensor:
    """The rows of x (N, ...) of all processes, in the order of their ranks."""
    if not in_several():
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def of_first(x: Tensor) -> Tensor:
    """The x of the first process, where rounding may have given each process its own."""
    if not in_several():
        return x
    x = x.contiguous()
    dist.broadcast(x, 0)
    return x


def agreed(value: str) -> bool:
    """Whether all processes hold the same value."""
    if not in_several():
        return True
    values: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values.count(value) == len(values)


def wait() -> None:
    """Return when all processes have come here."""
    agreed("")


def leave() -> None:
    """Part from the others: afterwards this process is on its own. Not collective."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
