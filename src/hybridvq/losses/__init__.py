"""The error of reconstruction that a training makes small: terms by name, or any module.

    x_hat, x (B,3,H,W) in [-1,1] ──► weight ✕ term + weight ✕ term + ... ──► one number

A term is a module that takes x_hat and x and returns a number, or one for each image. It may also have

    reads_rate = True               then it is given the bits of the tokens (`Rate`) as a third argument
    opponent_loss(x_hat, x)         what its own weights are trained to make small, by an optimizer of their own

A term without `opponent_loss` is used as it is, in eval mode. No weight of a term becomes part of the tokenizer.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.losses.discriminator import PatchDiscriminator
from hybridvq.losses.pixels import L1, MSE, PSNR, Charbonnier
from hybridvq.losses.rate_distortion import BITS, RateDistortion
from hybridvq.losses.similarity import MSSSIM
from hybridvq.losses.total import RECONSTRUCTION, TotalLoss
from hybridvq.ranges import check_options, check_weight

__all__ = [
    "BITS",
    "L1",
    "LOSSES",
    "MSE",
    "MSSSIM",
    "PSNR",
    "RECONSTRUCTION",
    "Charbonnier",
    "PatchDiscriminator",
    "RateDistortion",
    "TotalLoss",
    "build_loss",
]

LOSSES: dict[str, Callable[..., nn.Module]] = {
    "mse": MSE,
    "psnr": PSNR,
    "l1": L1,
    "charbonnier": Charbonnier,
    "ms-ssim": MSSSIM,
    "rate-distortion": RateDistortion,
    "discriminator": PatchDiscriminator,
}


def build_loss(setting: str | Mapping[str, Any]) -> TotalLoss:
    """The loss that `training.loss` asks for.

    Args:
        setting: the name of a term, or terms with their weights, {"mse": 1.0, "ms-ssim": 0.1}; in place of a weight may
            stand a term's options with it, {"weight": 0.1, "start": 1000}.

    Raises:
        ConfigError: no such term, a weight that is no number from 0 on, or an option that the term does not take.
    """
    if isinstance(setting, str):
        return TotalLoss({RECONSTRUCTION: build_term(setting, {})}, title=setting)
    if not isinstance(setting, Mapping) or not setting:
        raise ConfigError(f"training.loss is {setting!r}; give the name of a term, or terms with weights: {{mse: 1.0}}")
    terms, weights = {}, {}
    for name, value in setting.items():
        options = dict(value) if isinstance(value, Mapping) else {"weight": value}
        weights[name] = options.pop("weight", 1.0)
        check_weight(f"training.loss.{name}", weights[name])
        terms[name] = build_term(name, options)
    return TotalLoss(terms, weights)


def build_term(name: str, options: dict[str, Any]) -> nn.Module:
    """The term registered under `name`.

    Raises:
        ConfigError: there is none, or it does not take an option or its value.
    """
    if name not in LOSSES:
        near, names = did_you_mean(name, LOSSES), ", ".join(LOSSES)
        raise ConfigError(f"training.loss is {name!r}{near}; use {names}, or several of them with weights")
    check_options(f"training.loss.{name}", options, ["weight", *inspect.signature(LOSSES[name]).parameters])
    return LOSSES[name](**options)
