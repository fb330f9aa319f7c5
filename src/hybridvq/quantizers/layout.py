"""Any layout of positions as maps (B, C, h, w), and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hybridvq.errors import ShapeError


@dataclass(frozen=True)
class Layout:
    """How the positions of a batch (B, C, ...) are laid out.

    With a mask the valid positions alone are one map, (1, C, 1, M), so that the others count nowhere; on the way back
    the others are 0. A batch without positions is (0, C, 1, 1).

    Attributes:
        size: (B, ...), the sizes of the batch and of its positions.
        mask: (B, ...) bool, the valid positions; None means all.

    Raises:
        ShapeError: the mask is not bool, or of another size.
    """

    size: torch.Size
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        mask = self.mask
        if mask is not None and (mask.dtype != torch.bool or mask.shape != self.size):
            kind = str(mask.dtype).removeprefix("torch.")
            raise ShapeError(f"mask is {kind} of shape {tuple(mask.shape)}; give bool of shape {tuple(self.size)}")

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> "Layout":
        """The layout of x (B, C, ...)."""
        return cls(x.shape[:1] + x.shape[2:], mask)

    @property
    def is_map(self) -> bool:
        """Whether it is (B, C, h, w) already."""
        return self.mask is None and len(self.size) == 3 and 0 not in self.size[1:]

    def fold(self, x: Tensor) -> Tensor:
        """x (B, C, ...) as (B, C, h, w)."""
        if self.is_map:
            return x
        if self.mask is not None:
            x = x.movedim(1, -1)[self.mask].t()[None, :, None]
        if not x.numel():
            return x.reshape(0, x.shape[1], 1, 1)
        return x.reshape(*x.shape[:2], -1, x.shape[-1] if x.ndim > 2 else 1)

    def unfold(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) as (B, C, ...)."""
        if self.is_map:
            return x
        if self.mask is None:
            return x.reshape(self.size[0], x.shape[1], *self.size[1:])
        whole = x.new_zeros(*self.size, x.shape[1])
        whole[self.mask] = x.movedim(1, -1).flatten(0, 2)
        return whole.movedim(-1, 1)
