"""Activation checkpointing: a training step that is computed a second time as it was the first."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
REMEMBERED = 16  # steps between two backward passes


class Replay:
    """The training steps that a backward pass may compute again.

    `torch.utils.checkpoint` drops what a forward pass computed and calls it again within the backward pass. By then
    codes and averages have moved, so whatever may come again keeps the state that it found and its z. The second
    call finds its first by z, starts from that state, and leaves the one that it met. As all draws follow from the
    state, it is the first to the bit.
    """

    def __init__(self) -> None:
        self.seen: deque[tuple[Tensor, list[Tensor]]] = deque(maxlen=REMEMBERED)
        self.replayed = False  # whether any of them came again, so that the next backward pass is about others

    def __reduce__(self) -> tuple[type["Replay"], tuple[()]]:
        return Replay, ()  # a copy of the layer has computed nothing yet

    def step(self, compute: Callable[[Tensor], T], z: Tensor, state: Sequence[Tensor]) -> T:
        """compute(z), which moves the tensors of `state`, or does so again."""
        alike = [(seen, found) for seen, found in self.seen if seen.shape == z.shape] if in_backward() else []
        if alike:
            _, found = min(alike, key=lambda pair: (pair[0] - z.detach()).abs().max().item())
            met, self.replayed = copies(state), True
            restore(state, found)
            try:
                return compute(z)
            finally:  # checkpoint may also end the second call by an exception, once it has what it needs
                restore(state, met)
        if self.replayed:
            self.seen.clear()
            self.replayed = False
        if may_come_again():
            self.seen.append((z.detach(), copies(state)))
        return compute(z)


def in_backward() -> bool:
    """Whether a backward pass is running."""
    return torch._C._current_graph_task_id() != -1


def may_come_again() -> bool:
    """Whether what is computed now may be under `torch.utils.checkpoint`.

    It turns gradients off (`use_reentrant=True`) or keeps what is saved for them (False).
    """
    return not torch.is_grad_enabled() or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def copies(state: Sequence[Tensor]) -> list[Tensor]:
    return [part.detach().clone() for part in state]


@torch.no_grad()
def restore(state: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for part, value in zip(state, values, strict=True):
        part.copy_(value)
