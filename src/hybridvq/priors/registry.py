"""Priors by name."""

import inspect
from typing import Any

from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.priors.base import Prior
from hybridvq.priors.masked import MaskedPrior
from hybridvq.priors.pixelcnn import PixelCNNPrior
from hybridvq.priors.static import StaticPrior
from hybridvq.priors.transformer import TransformerPrior
from hybridvq.quantizers import TokenSpace
from hybridvq.ranges import check_options

PRIORS: dict[str, type[Prior]] = {
    "static": StaticPrior,
    "pixelcnn": PixelCNNPrior,
    "transformer": TransformerPrior,
    "masked": MaskedPrior,
}


def build_prior(
    name: str,
    space: TokenSpace,
    shape: tuple[int, int],
    classes: int | None = None,
    options: dict[str, Any] | None = None,
) -> Prior:
    """The prior registered under `name`, for the tokens of `space` on grids of `shape` (h, w).

    Args:
        classes: number of class labels; None for an unconditional prior.
        options: that prior's other arguments.

    Raises:
        ConfigError: no such prior, an option it does not take, or one that has no such value.
    """
    if name not in PRIORS:
        near = did_you_mean(name, PRIORS)
        raise ConfigError(f"there is no prior named {name!r}{near}; choose one of {', '.join(PRIORS)}")
    options = options or {}
    check_options(f"the {name} prior", options, list(inspect.signature(PRIORS[name]).parameters)[3:])
    try:
        return PRIORS[name](space, shape, classes, **options)
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"one of the {name} prior's options {options} has a value that cannot be used ({error})"
        ) from error
