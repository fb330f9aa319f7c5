"""Sums and rows over all processes; what is given, where there is one process."""

import torch
import torch.distributed as dist
from torch import Tensor


def in_several() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized()


def total(x: Tensor) -> Tensor:
    """x summed over all processes, in place."""
    if in_several():
        dist.all_reduce(x)
    return x


def average(x: Tensor) -> Tensor:
    """x averaged over all processes; gradients pass, so that each process has those of all the losses together."""
    if not in_several():
        return x
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(x)
    return summed / dist.get_world_size()


def gather(z: Tensor) -> Tensor:
    """The rows of z (N, D) of all processes, in the order of their ranks."""
    if not in_several():
        return z
    parts = [torch.empty_like(z) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, z.contiguous())
    return torch.cat(parts)
