"""Image tokenizers whose latents are part discrete, part continuous.

from hybridvq import load_tokenizer
tokenizer = load_tokenizer("runs/vector")
tokens = tokenizer.encode(x)        # x (B, 3, H, W) in [-1, 1]
x_hat = tokenizer.decode(tokens)    # from the tokens alone
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridvq._version import __version__

if TYPE_CHECKING:
    from hybridvq.bulk import load_tokens as load_tokens
    from hybridvq.bulk import tokenize as tokenize
    from hybridvq.codec import Codec as Codec
    from hybridvq.codec import compress as compress
    from hybridvq.codec import decompress as decompress
    from hybridvq.comparison import compare as compare
    from hybridvq.data import open_images as open_images
    from hybridvq.errors import CodecError as CodecError
    from hybridvq.errors import ConfigError as ConfigError
    from hybridvq.errors import DataError as DataError
    from hybridvq.errors import HybridVQError as HybridVQError
    from hybridvq.errors import MissingExtraError as MissingExtraError
    from hybridvq.errors import ModelError as ModelError
    from hybridvq.errors import ShapeError as ShapeError
    from hybridvq.errors import TrainingError as TrainingError
    from hybridvq.evaluation import evaluate as evaluate
    from hybridvq.export import export_onnx as export_onnx
    from hybridvq.generation import sample as sample
    from hybridvq.priors import MaskedPrior as MaskedPrior
    from hybridvq.priors import PixelCNNPrior as PixelCNNPrior
    from hybridvq.priors import Prior as Prior
    from hybridvq.priors import StaticPrior as StaticPrior
    from hybridvq.priors import TransformerPrior as TransformerPrior
    from hybridvq.priors import build_prior as build_prior
    from hybridvq.priors import load_prior as load_prior
    from hybridvq.quantizers import FiniteScalarQuantizer as FiniteScalarQuantizer
    from hybridvq.quantizers import FrequencyQuantizer as FrequencyQuantizer
    from hybridvq.quantizers import GainShapeQuantizer as GainShapeQuantizer
    from hybridvq.quantizers import GaussianQuantizer as GaussianQuantizer
    from hybridvq.quantizers import HybridQuantizer as HybridQuantizer
    from hybridvq.quantizers import IdentityQuantizer as IdentityQuantizer
    from hybridvq.quantizers import ProjectedQuantizer as ProjectedQuantizer
    from hybridvq.quantizers import Quantized as Quantized
    from hybridvq.quantizers import Quantizer as Quantizer
    from hybridvq.quantizers import Tokens as Tokens
    from hybridvq.quantizers import VectorQuantizer as VectorQuantizer
    from hybridvq.quantizers import build_quantizer as build_quantizer
    from hybridvq.recipe import load_recipe as load_recipe
    from hybridvq.report import write_report as write_report
    from hybridvq.settings import CodecSettings as CodecSettings
    from hybridvq.tokenizer import Tokenizer as Tokenizer
    from hybridvq.tokenizer import load_tokenizer as load_tokenizer
    from hybridvq.training import train as train
    from hybridvq.training import train_prior as train_prior

# Loaded on first use, so that the command line and its help do not wait for torch.
_HOMES = {
    name: home
    for home, names in {
        "bulk": "load_tokens tokenize",
        "codec": "Codec compress decompress",
        "comparison": "compare",
        "data": "open_images",
        "errors": (
            "CodecError ConfigError DataError HybridVQError MissingExtraError ModelError ShapeError TrainingError"
        ),
        "evaluation": "evaluate",
        "export": "export_onnx",
        "generation": "sample",
        "priors": "MaskedPrior PixelCNNPrior Prior StaticPrior TransformerPrior build_prior load_prior",
        "quantizers": (
            "FiniteScalarQuantizer FrequencyQuantizer GainShapeQuantizer GaussianQuantizer HybridQuantizer "
            "IdentityQuantizer ProjectedQuantizer Quantized Quantizer Tokens VectorQuantizer build_quantizer"
        ),
        "recipe": "load_recipe",
        "report": "write_report",
        "settings": "CodecSettings",
        "tokenizer": "Tokenizer load_tokenizer",
        "training": "train train_prior",
    }.items()
    for name in names.split()
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridvq' has no attribute {name!r}")
    try:
        return getattr(import_module(f"hybridvq.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from hybridvq.extras import missing

        raise missing(error) or error from None


def __dir__() -> list[str]:
    return __all__
