"""Image tokenizers whose latents are part discrete, part continuous.

from hybridvq import load_tokenizer
tokenizer = load_tokenizer("runs/vector")
tokens = tokenizer.encode(x)        # x (B, 3, H, W) in [-1, 1]
x_hat = tokenizer.decode(tokens)    # from the tokens alone
"""

from importlib import import_module
from typing import Any

from hybridvq._version import __version__

# Loaded on first use, so that the command line and its help do not wait for torch.
_HOMES = {
    "CodecError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "HybridVQError": "errors",
    "ModelError": "errors",
    "ShapeError": "errors",
    "TrainingError": "errors",
    "FrequencyQuantizer": "quantizers",
    "GainShapeQuantizer": "quantizers",
    "GaussianQuantizer": "quantizers",
    "HybridQuantizer": "quantizers",
    "IdentityQuantizer": "quantizers",
    "ProjectedQuantizer": "quantizers",
    "Quantized": "quantizers",
    "Quantizer": "quantizers",
    "Tokens": "quantizers",
    "VectorQuantizer": "quantizers",
    "build_quantizer": "quantizers",
    "Tokenizer": "tokenizer",
    "load_tokenizer": "tokenizer",
    "PixelCNNPrior": "priors",
    "Prior": "priors",
    "StaticPrior": "priors",
    "TransformerPrior": "priors",
    "build_prior": "priors",
    "load_prior": "priors",
    "evaluate": "evaluation",
    "export_onnx": "export",
    "open_images": "data",
    "Codec": "codec",
    "compress": "codec",
    "decompress": "codec",
    "CodecSettings": "settings",
    "load_tokens": "bulk",
    "tokenize": "bulk",
    "load_recipe": "recipe",
    "train": "training",
    "compare": "compare",
    "write_report": "report",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridvq' has no attribute {name!r}")
    return getattr(import_module(f"hybridvq.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
