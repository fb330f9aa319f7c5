"""Weights of a saved model, compared with what its configuration implies before anything of that size is allocated."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Held = Mapping[str, tuple[str, tuple[int, ...]]]  # the type and shape of each tensor of a file

FLOATS = {"F64", "F32", "F16", "BF16"}
OTHERS = {torch.int64: "I64", torch.bool: "BOOL"}
REPEATED = ("layers", "stages")  # options that say how many parts a module has, each with tensors of its own


def build_with_weights(build: Callable[[], M], config: Mapping[str, Any], file: Path) -> M:
    """The module that `build` makes of `config`, with the weights in a safetensors file.

    It is made without storage first; only if the file holds what it consists of is it made again.

    Raises:
        ValueError: the file lacks a tensor, or holds another, or one of another shape or type, or one that is not
            finite; the message names the tensor, and the key of `config` that its shape follows from.
        Exception: what `build` and the safetensors reader raise.
    """
    held, keys = read_header(file), dict(numbers(config))
    for key, value in keys.items():
        if key.split(".")[-1] in REPEATED and value > len(held):
            raise ValueError(f"{key} is {value}, but {file.name} holds {len(held)} tensors in all")
    with torch.device("meta"):
        implied = build().state_dict()
    check_same(implied, held, keys, file.name)
    weights = load_file(file)
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} of {file.name} holds a number that is not finite")
    module = build()
    module.load_state_dict(weights)
    return module


def read_header(file: Path) -> Held:
    """What a safetensors file holds; none of it is read."""
    with safe_open(file, "pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


def numbers(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration, by dotted keys."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield prefix + key, value


def check_same(implied: Mapping[str, Tensor], held: Held, keys: Mapping[str, int], file: str) -> None:
    """Raise ValueError unless a file holds what is implied."""
    for name, tensor in implied.items():
        if name not in held:
            continue
        dtype, shape = held[name]
        if shape != tuple(tensor.shape):
            sizes = set(tensor.shape) - set(shape)
            blamed = [f"{key} {value}" for key, value in keys.items() if value in sizes]
            because = f" because of {' or '.join(blamed)}" if blamed else ""
            raise ValueError(f"{name} of {file} is {shape}, and config.json asks for {tuple(tensor.shape)}{because}")
        if not (dtype in FLOATS if tensor.is_floating_point() else dtype == OTHERS.get(tensor.dtype)):
            raise ValueError(f"{name} of {file} is of type {dtype}, and config.json asks for {tensor.dtype}")
    missing, unasked = [n for n in implied if n not in held], [n for n in held if n not in implied]
    if missing or unasked:
        parts = [f"lacks {listed(missing)}"] * bool(missing) + [f"holds {listed(unasked)} besides"] * bool(unasked)
        raise ValueError(f"for what config.json says, {file} {' and '.join(parts)}")


def listed(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
