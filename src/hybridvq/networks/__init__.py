"""The encoder and decoder around the quantizer, by name.

x (B,3,f h,f w) in [-1,1] ──► encoder ──► z (B,D,h,w) ──► quantizer ──► z_hat (B,D,h,w) ──► decoder ──► x_hat

A network made of others says in `paths` which modules it applies to its input, side by side, before it adds what they
give: so its receptive field is known, and images are computed tile by tile.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.networks import photo, published
from hybridvq.networks.published import BatchNorm2d, Decoder, Encoder, ResidualBlock, TransposedConv2d
from hybridvq.ranges import check_options

__all__ = [
    "NETWORKS",
    "BatchNorm2d",
    "Decoder",
    "Encoder",
    "ResidualBlock",
    "TransposedConv2d",
    "build_network",
    "network_parts",
]

NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "published": (published.Encoder, published.Decoder),
    "photo": (photo.Encoder, photo.Decoder),
}


def build_network(
    name: str, dim: int, downsampling: int, options: dict[str, Any] | None = None
) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder registered under `name`, for z of `dim` numbers per position of f x f pixels.

    Raises:
        ConfigError: as `network_parts`, or an option has no such value.
    """
    encoder, decoder = network_parts(name, dim, downsampling, options)
    return encoder(), decoder()


def network_parts(
    name: str, dim: int, downsampling: int, options: dict[str, Any] | None = None
) -> tuple[Callable[[], nn.Module], Callable[[], nn.Module]]:
    """What makes the encoder and what makes the decoder, each from `dim`, `downsampling` and its part of the options.

    Raises:
        ConfigError: no such network, or an option that neither takes.
    """
    if name not in NETWORKS:
        near = did_you_mean(name, NETWORKS)
        raise ConfigError(f"there is no network named {name!r}{near}; choose one of {', '.join(NETWORKS)}")
    options = options or {}
    taken = [list(inspect.signature(kind).parameters)[2:] for kind in NETWORKS[name]]
    check_options(f"the {name} network", options, list(dict.fromkeys(taken[0] + taken[1])))
    encoder, decoder = (
        partial(kind, dim, downsampling, **{key: options[key] for key in keys if key in options})
        for kind, keys in zip(NETWORKS[name], taken, strict=True)
    )
    return encoder, decoder
