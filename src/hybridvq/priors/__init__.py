"""Which tokens come after which: distributions over the tokens of an image."""

from hybridvq.priors.base import Prior, Score, steps
from hybridvq.priors.bits import Bits, GainGrid, bits_per_position
from hybridvq.priors.choice import Choice
from hybridvq.priors.masked import MaskedPrior
from hybridvq.priors.network import decay_groups
from hybridvq.priors.pixelcnn import PixelCNNPrior
from hybridvq.priors.registry import PRIORS, build_prior
from hybridvq.priors.saving import (
    load_prior,
    save_prior,
    save_with_tokenizer,
    tokenizer_of_prior,
)
from hybridvq.priors.static import StaticPrior
from hybridvq.priors.transformer import TransformerPrior

__all__ = [
    "PRIORS",
    "Bits",
    "Choice",
    "GainGrid",
    "MaskedPrior",
    "PixelCNNPrior",
    "Prior",
    "Score",
    "StaticPrior",
    "TransformerPrior",
    "bits_per_position",
    "build_prior",
    "decay_groups",
    "load_prior",
    "save_prior",
    "save_with_tokenizer",
    "steps",
    "tokenizer_of_prior",
]
