"""What can happen to the encoder's vector at each position, by name."""

import inspect
from typing import Any

from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.quantizers.base import Quantizer, nearest_code, straight_through
from hybridvq.quantizers.codebook import Codebook, CodeVectors
from hybridvq.quantizers.finite_scalar import FiniteScalarQuantizer
from hybridvq.quantizers.frequency import FrequencyQuantizer
from hybridvq.quantizers.gain_shape import GainShapeQuantizer
from hybridvq.quantizers.gaussian import GaussianQuantizer
from hybridvq.quantizers.hybrid import HybridQuantizer, step_of_quality
from hybridvq.quantizers.identity import IdentityQuantizer
from hybridvq.quantizers.projected import ProjectedQuantizer
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.tokens import Quantized, Rate, Tokens
from hybridvq.quantizers.vector import VectorQuantizer
from hybridvq.ranges import check_options

__all__ = [
    "QUANTIZERS",
    "CodeVectors",
    "Codebook",
    "FiniteScalarQuantizer",
    "FrequencyQuantizer",
    "GainShapeQuantizer",
    "GaussianQuantizer",
    "HybridQuantizer",
    "IdentityQuantizer",
    "ProjectedQuantizer",
    "Quantized",
    "Quantizer",
    "Rate",
    "TokenSpace",
    "Tokens",
    "VectorQuantizer",
    "build_quantizer",
    "nearest_code",
    "step_of_quality",
    "straight_through",
]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "vector": VectorQuantizer,
    "projected": ProjectedQuantizer,
    "frequency": FrequencyQuantizer,
    "gain-shape": GainShapeQuantizer,
    "hybrid": HybridQuantizer,
    "fsq": FiniteScalarQuantizer,
    "identity": IdentityQuantizer,
    "gaussian": GaussianQuantizer,
}


def build_quantizer(dim: int, name: str, options: dict[str, Any] | None = None) -> Quantizer:
    """The quantizer registered under `name`, for vectors of `dim` numbers.

    Raises:
        ConfigError: no such quantizer, an option it does not take, one it needs and does not get, or one that has no
            such value.
    """
    if name not in QUANTIZERS:
        near = did_you_mean(name, QUANTIZERS)
        raise ConfigError(f"there is no quantizer named {name!r}{near}; choose one of {', '.join(QUANTIZERS)}")
    options = options or {}
    parameters = dict(inspect.signature(QUANTIZERS[name]).parameters)
    parameters.pop("dim")
    check_options(f"the {name} quantizer", options, list(parameters))
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise ConfigError(f"the {name} quantizer needs the option {key!r}")
    try:
        return QUANTIZERS[name](dim, **options)
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"one of the {name} quantizer's options {options} has a value that cannot be used ({error})"
        ) from error
