"""Which device computes, by name, and the mode that a model is in while it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn

from hybridvq.errors import ConfigError

Device = str | torch.device


def find_device(device: Device = "auto") -> torch.device:
    """The device of that name.

    Args:
        device: cpu, cuda, cuda:1, mps or another that torch knows; auto is the first of CUDA, Apple's Metal and the CPU
            that this machine has.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if count_devices(kind)))
    try:
        found = torch.device(device)
        count = count_devices(found.type)
    except (RuntimeError, TypeError):
        raise ConfigError(f"device is {device!r}; use cpu, cuda, cuda:1, mps or auto") from None
    if (found.index or 0) >= count:
        kinds = [kind for kind in ("cpu", "cuda", "mps") if count_devices(kind)]
        there = [kind if count_devices(kind) == 1 else f"{kind}:0 to {count_devices(kind) - 1}" for kind in kinds]
        raise ConfigError(f"device is {device}, which this machine does not have; use {', '.join(there)} or auto")
    return found


def count_devices(kind: str) -> int:
    """How many devices of a kind this machine has; raises RuntimeError for a kind that torch does not know."""
    return int(torch.get_device_module(kind).device_count())


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode while inside, and after it each part in the mode it was in before; gives the models' device."""
    modes = [(part, part.training) for model in models for part in model.modules()]
    for model in models:
        model.eval()
    try:
        yield next(chain(*((*model.parameters(), *model.buffers()) for model in models), [torch.empty(0)])).device
    finally:
        for part, training in modes:
            part.training = training
