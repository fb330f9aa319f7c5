"""What a quantizer gives: tokens, and the result around them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node
from torch.utils.data._utils.collate import default_collate_fn_map

from hybridvq.errors import ConfigError, ShapeError
from hybridvq.metrics import codes_used, perplexity

FLOAT_BITS = 32


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """All that a decoder needs of a batch of images, beside the model's weights.

    `len(tokens)` is the number of images. `tokens[3]`, `tokens[2:5]` and `tokens[[4, 1]]` are the tokens of some of
    them, always with a batch axis: `tokens[3]` is a batch of one, and can be decoded. So an item of a data set is a
    batch of one too, and a `DataLoader` joins items by `Tokens.cat`.

    Attributes:
        codes: (B, S, h, w) int64, codebook indices; None where a model has no codebook.
        gains: (B, S, h, w) float32, the coefficient of each code, or int64, its level; None where the code is used as
            it is.
        vectors: (B, D, h, w) float32, the encoder's own vectors; None where none is passed through.
        passed: (B, 1, h, w) bool, the positions whose floats (gains or vectors) are read; None means every
            position. It follows from `codes` and the model's frequency table, so it costs no bits.
        coefficients: (B, D, h, w) int32, what is left of the vectors once codes have said what to expect, in steps;
            the codes then stand on a grid of their own. None where there is no such rest, or it was left out.
        step: (B,) float32, the step that each image's coefficients count; None without coefficients.
    """

    codes: Tensor | None = None
    gains: Tensor | None = None
    vectors: Tensor | None = None
    passed: Tensor | None = None
    coefficients: Tensor | None = None
    step: Tensor | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts that are not None, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Tokens":
        """Tokens of `change` of each part."""
        return Tokens(**{name: change(part) for name, part in self.parts.items()})

    def to(self, device: str | torch.device, non_blocking: bool = False) -> "Tokens":
        """These tokens on a device."""
        return self.map(lambda part: part.to(device, non_blocking=non_blocking))

    def stages(self, count: int) -> "Tokens":
        """The first `count` codes of each position, and their gains.

        Raises:
            ConfigError: there are not so many, or none.
        """
        if self.codes is None or not 1 <= count <= self.codes.shape[1]:
            most = 0 if self.codes is None else self.codes.shape[1]
            raise ConfigError(f"{count} stages are asked for, and these tokens have {most}")
        gains = None if self.gains is None else self.gains[:, :count]
        return replace(self, codes=self.codes[:, :count], gains=gains)

    def completed(self, stages: int = 1) -> "Tokens":
        """The same with int64 codes and levels, and with an axis of stages where codes and gains are (B, h, w)."""
        whole = {}
        for name in self.parts.keys() & {"codes", "gains"}:
            part = self.parts[name]
            part = part if part.is_floating_point() or part.dtype == torch.bool else part.long()
            whole[name] = part[:, None] if part.ndim == 3 and stages == 1 != part.shape[1] else part
        return replace(self, **whole)

    @classmethod
    def cat(cls, batches: Sequence["Tokens"]) -> "Tokens":
        """All images of several batches, in order.

        Raises:
            ConfigError: there is no batch, or they hold different things.
            ShapeError: their positions differ.
        """
        if not batches:
            raise ConfigError("there are no tokens to join; give at least one batch")
        if len({tuple(batch.parts) for batch in batches}) > 1:
            raise ConfigError(f"these tokens hold different things: {', '.join(sorted(set(map(repr, batches))))}")
        joined = {name: [batch.parts[name] for batch in batches] for name in batches[0].parts}
        for name, parts in joined.items():
            if len({part.shape[1:] for part in parts}) > 1:
                shapes = ", ".join(sorted({str(tuple(part.shape)) for part in parts}))
                raise ShapeError(f"the {name} have the shapes {shapes}; only the first number may differ")
        return cls(**{name: torch.cat(parts) for name, parts in joined.items()})

    def __len__(self) -> int:
        return next((len(part) for part in self.parts.values()), 0)

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> "Tokens":
        """The tokens of some images; a batch of one for a number.

        Raises:
            IndexError: there is no such image.
        """
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise IndexError(f"image {which} of {len(self)}")
            which = [which % len(self)]
        return self.map(lambda part: part[which])

    def __iter__(self) -> Iterator["Tokens"]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same numbers."""
        if not isinstance(other, Tokens):
            return NotImplemented
        own, others = self.parts, other.parts
        return own.keys() == others.keys() and all(
            part.shape == others[name].shape and bool((part == others[name]).all()) for name, part in own.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = (f"{n} {tuple(p.shape)} {str(p.dtype).removeprefix('torch.')}" for n, p in self.parts.items())
        return f"Tokens({', '.join(parts)})"

    def float_bits(self) -> float:
        """Bits that a position spends on floats: 32 per coefficient and 32 D per passed-through vector, averaged."""
        share = 1.0 if self.passed is None else self.passed.double().mean().item()
        floats = sum(t.shape[1] for t in (self.gains, self.vectors) if t is not None and t.is_floating_point())
        return FLOAT_BITS * floats * share

    @property
    def has_floats(self) -> bool:
        """Whether any position carries a number of unlimited precision."""
        return self.float_bits() > 0


@dataclass(frozen=True)
class Rate:
    """What a quantizer that counts its bits says of them, for a loss of rate and distortion. (B,) float32 each.

    Attributes:
        bits: of each image's tokens, by an ideal coder; differentiable.
        aside_bits: of the same numbers under a distribution that learns on them without a say in z; zero if there is
            none.
        distortion_weight: bits per pixel that a squared error of 1 is worth, pixels being 0 to 255.
        image_weight: how much the image counts in the mean over images.
    """

    bits: Tensor
    aside_bits: Tensor
    distortion_weight: Tensor
    image_weight: Tensor


@dataclass(frozen=True)
class Quantized:
    """The result of a quantizer.

    `z_hat, codes, loss = quantizer(z)` takes it apart as vector-quantize-pytorch does: codes (B, S, h, w), None where
    there are none, and the sum of the losses.

    Attributes:
        z_hat: (B, D, h, w) float32, what the decoder reads; gradients flow through it to z.
        tokens: what `dequantize` needs to give the same z_hat.
        losses: the quantizer's terms of the training loss, weighted, each a mean over elements; their sum is
            added to the reconstruction loss.
        error: mean of ||z - z_hat||^2 over elements, in the space that is quantized; carries no gradient.
        rate: the bits of the tokens; None unless the quantizer counts them (`counts_bits`).
        codebook_size: K; None where there are no codes.
    """

    z_hat: Tensor
    tokens: Tokens
    losses: dict[str, Tensor] = field(default_factory=dict)
    error: Tensor | None = None
    rate: Rate | None = None
    codebook_size: int | None = None

    @property
    def loss(self) -> Tensor:
        """The sum of the losses, 0 where there are none."""
        return sum(self.losses.values(), self.z_hat.new_zeros(()))

    @property
    def perplexity(self) -> float | None:
        """How many equally frequent codes would be as hard to predict as this batch's; averaged over stages."""
        if self.tokens.codes is None:
            return None
        stages = [perplexity(codes.unique(return_counts=True)[1]) for codes in self.tokens.codes.unbind(1)]
        return sum(stages) / len(stages)

    @property
    def usage(self) -> float | None:
        """The share of the K codes that this batch uses, in any stage."""
        if self.tokens.codes is None or not self.codebook_size:
            return None
        return codes_used(torch.bincount(self.tokens.codes.flatten())) / self.codebook_size

    def __iter__(self) -> Iterator[Any]:
        return iter((self.z_hat, self.tokens.codes, self.loss))


def register_tree(kind: type, fixed: Sequence[str] = ()) -> None:
    """Let `torch.utils._pytree`, and so `torch.compile` and `torch.export`, see the tensors of a dataclass.

    Parts that are None, and those `fixed`, belong to the structure.
    """
    names = [part.name for part in fields(kind) if part.name not in fixed]

    def flatten(value: Any) -> tuple[list[Any], Any]:
        there = [name for name in names if getattr(value, name) is not None]
        return [getattr(value, name) for name in there], (there, [getattr(value, name) for name in fixed])

    def unflatten(parts: Any, context: Any) -> Any:
        there, constants = context
        return kind(**dict(zip(there, parts, strict=True)), **dict(zip(fixed, constants, strict=True)))

    register_pytree_node(kind, flatten, unflatten, serialized_type_name=f"{kind.__module__}.{kind.__qualname__}")


register_tree(Tokens)
register_tree(Rate)
register_tree(Quantized, fixed=["codebook_size"])
default_collate_fn_map[Tokens] = lambda items, **_: Tokens.cat(items)
