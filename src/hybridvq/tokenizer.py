"""An image tokenizer: encoder, quantizer, decoder."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from torch import Tensor, nn

from hybridvq.documents import read_json
from hybridvq.errors import ConfigError, DataError, ModelError, ShapeError
from hybridvq.networks import network_parts
from hybridvq.pretrained import pretrained_folder, pretrained_names
from hybridvq.quantizers import Quantized, Quantizer, Tokens, build_quantizer
from hybridvq.ranges import SIZE
from hybridvq.settings import ModelSettings
from hybridvq.weights import build_with_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
GIVEN = "given"  # in config.json, in place of a part that was given as a module: its class
MODEL_CARD = """---
{{ card_data }}
---

An image tokenizer trained with hybridvq; `hybridvq.load_tokenizer` loads this folder, and config.json says what it is.
"""


@dataclass(frozen=True)
class Reconstruction:
    """One pass through a tokenizer.

    Attributes:
        x_hat: (B, 3, H, W) in [-1, 1].
        z: (B, D, h, w), the encoder's output.
        quantized: z_hat, tokens and losses.
    """

    x_hat: Tensor
    z: Tensor
    quantized: Quantized


class Tokenizer(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="hybridvq",
    tags=["image-tokenizer"],
    model_card_template=MODEL_CARD,
    coders={nn.Module: (lambda module: {GIVEN: type(module).__name__}, lambda value: value)},
):
    """Images to tokens and back.

        x ──► encoder ──► z ──► quantizer ──► tokens ──► dequantize ──► z_hat ──► decoder ──► x_hat
        (B,3,H,W)      (B,D,H/f,W/f)                                (B,D,H/f,W/f)          (B,3,H,W)

    `save_pretrained(folder)` writes model.safetensors and config.json; `from_pretrained(model)` reads them, from a
    folder, from a model that comes along, such as photos-f4, or from the hub.

    Args:
        dim: D, the width of the published network and the length of a code.
        downsampling: f, a power of two.
        quantizer: a name of `hybridvq.quantizers.QUANTIZERS`, or a quantizer.
        options: the named quantizer's arguments, other than dim.
        network: a name of `hybridvq.networks.NETWORKS`.
        network_options: that network's arguments, other than dim and downsampling.
        encoder, decoder: modules in place of the named network's, (B, 3, f h, f w) in [-1, 1] to (B, D, h, w) and back.
            Their weights, and a given quantizer's, are saved with the others; whoever loads the model gives the modules
            again.
        size: side of the images it is trained on, in pixels, which images of other sizes are compared with; None if it
            is not known. It changes nothing that is computed.

    Raises:
        ConfigError: an argument has no such value.
    """

    __call__: Callable[..., Reconstruction]

    def __init__(
        self,
        dim: int = 64,
        downsampling: int = 4,
        quantizer: str | Quantizer = "vector",
        options: dict[str, Any] | None = None,
        network: str = "published",
        network_options: dict[str, Any] | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        ModelSettings(dim, downsampling)  # which checks them
        if size is not None:
            SIZE.check("size", size)
        self.dim, self.downsampling, self.size = dim, downsampling, size
        make_encoder, make_decoder = network_parts(network, dim, downsampling, network_options)
        self.encoder = make_encoder() if encoder is None else encoder
        self.quantizer = quantizer if isinstance(quantizer, Quantizer) else named_quantizer(dim, quantizer, options)
        self.decoder = make_decoder() if decoder is None else decoder
        if self.quantizer.dim != dim:
            raise ConfigError(f"dim is {dim}, but the quantizer was made for vectors of {self.quantizer.dim} numbers")

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that it was made with, as config.json has them."""
        assert isinstance(self._hub_mixin_config, dict)
        return self._hub_mixin_config

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "Tokenizer":
        """As `load_tokenizer`, on the device `map_location`.

        Args:
            revision, token, cache_dir, local_files_only, force_download: how a model of the hub is downloaded, as in
                huggingface-hub; folders and bundled models need none of it.

        Raises:
            ModelError: as `load_tokenizer`.
        """
        download = {"revision": revision, "token": token, "cache_dir": cache_dir}
        download |= {"local_files_only": local_files_only, "force_download": force_download}
        return load_tokenizer(model_folder(pretrained_model_name_or_path, download)).to(map_location)

    def forward(self, x: Tensor, step: float | Tensor | None = None) -> Reconstruction:
        """Reconstruct x (B, 3, H, W) in [-1, 1].

        Raises:
            ShapeError, DataError, ConfigError: as `encode`; values are not looked at in training mode.
        """
        self._check(x)
        if not self.training:
            check_range(x)
        z = self.encoder(x)
        quantized = self.quantizer(z, step)
        return Reconstruction(self.decoder(quantized.z_hat), z, quantized)

    def encode(self, x: Tensor, step: float | Tensor | None = None) -> Tokens:
        """The tokens of x (B, 3, H, W) in [-1, 1].

        Args:
            step: of a hybrid quantizer, what coefficients are rounded to, one for all images or (B,); see
                `hybridvq.quantizers.step_of_quality`.

        Raises:
            ConfigError: a step is given, and the quantizer has none or it is not positive.
            ShapeError: x is not a batch of color images, of floats, whose sides are multiples of `downsampling`.
            DataError: x has values outside of [-1, 1], or NaN.
        """
        return self.quantize(x, step).tokens

    def quantize(self, x: Tensor, step: float | Tensor | None = None) -> Quantized:
        """As `encode`, with what the quantizer says beside the tokens.

        Raises:
            ConfigError, ShapeError, DataError: as `encode`.
        """
        self._check(x)
        check_range(x)
        quantized: Quantized = self.quantizer(self.encoder(x), step)
        return quantized

    def decode(self, tokens: Tokens) -> Tensor:
        """x_hat (B, 3, H, W) in [-1, 1], from the tokens alone."""
        return self.decoder(self.quantizer.dequantize(tokens))

    def check_size(self, size: int) -> None:
        """Raise ShapeError unless images of `size` pixels a side divide into whole positions."""
        f = self.downsampling
        if size % f or size < f:
            near = max(1, round(size / f)) * f
            raise ShapeError(
                f"images of {size} pixels a side do not divide into positions of {f}x{f}; choose a size such as {near}"
            )

    def _check(self, x: Tensor) -> None:
        f = self.downsampling
        if x.ndim != 4 or x.shape[1] != 3 or any(side < f or side % f for side in x.shape[2:]):
            raise ShapeError(
                f"x has shape {tuple(x.shape)}; this tokenizer takes (batch, 3, height, width) with height and width "
                f"multiples of {f}"
            )
        if not x.is_floating_point():
            raise ShapeError(f"x is {x.dtype}; this tokenizer takes floats in [-1, 1]: of bytes, give x / 127.5 - 1")


def check_range(x: Tensor) -> None:
    """Raise DataError unless all values of x lie in [-1, 1], to a hundredth; not while a graph is traced."""
    if torch.compiler.is_compiling() or not x.numel():
        return
    low, high = (value.item() for value in torch.aminmax(x.detach()))
    if not -1.01 <= low <= high <= 1.01:  # false for NaN
        found = "holds NaN" if math.isnan(low) else f"has values from {low:.4g} to {high:.4g}"
        raise DataError(f"x {found}; images lie in [-1, 1]: of values in 0 to 255, give x / 127.5 - 1")


def named_quantizer(dim: int, name: str, options: dict[str, Any] | None) -> Quantizer:
    """As `build_quantizer`; raises ConfigError for whatever is wrong with the options."""
    try:
        return build_quantizer(dim, name, options)
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"one of the {name} quantizer's options {options} has a value that cannot be used ({error})"
        ) from error


def load_tokenizer(
    model: str | Path,
    *,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    quantizer: Quantizer | None = None,
) -> Tokenizer:
    """A tokenizer in eval mode: that in a folder or a run's `model` folder, one that comes along, or one of the hub.

    Args:
        model: the folder, a name such as photos-f4 (see `pretrained_names`), or the hub id. A folder here is preferred.
        encoder, decoder, quantizer: the modules that the tokenizer was made with, where it was; they take on the
            weights of the folder.

    Raises:
        ModelError: there is none, its files cannot be used, or it was made with a module that is not given.
    """
    folder = model_folder(model)
    given = {"encoder": encoder, "decoder": decoder, "quantizer": quantizer}
    try:
        config = read_json(folder / CONFIG)
        config |= {part: module for part, module in given.items() if module is not None}
        check_given(config, folder)
        tokenizer = build_with_weights(partial(Tokenizer, **config), config | {"size": None}, folder / WEIGHTS)
    except ModelError:
        raise
    except Exception as error:  # the JSON and safetensors readers, the constructor and torch each raise their own
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder} does not hold a tokenizer that this version can load ({reason}); give a folder that "
            "`hybridvq train` wrote"
        ) from error
    return tokenizer.eval()


def check_given(config: dict[str, Any], folder: Path) -> None:
    """Raise ModelError if a part of the tokenizer in `folder` was given as a module, and still is to be."""
    for part in ("encoder", "decoder", "quantizer"):
        if isinstance(value := config.get(part), dict):
            raise ModelError(
                f"the tokenizer in {folder} was made with a module {value.get(GIVEN)} as its {part}; give one like it: "
                f"load_tokenizer(folder, {part}=...)"
            )


def model_folder(model: str | Path, download: Mapping[str, Any] | None = None) -> Path:
    """Where a model's two files are, downloaded if `model` is a hub id; see `load_tokenizer`.

    Args:
        download: arguments of huggingface-hub's `snapshot_download`.

    Raises:
        ModelError: there are none.
    """
    path = Path(model)
    if path.is_dir():
        path = path / "model" if (path / "model" / CONFIG).is_file() else path
    elif folder := pretrained_folder(model):
        path = folder
    elif path.exists() or str(model).count("/") != 1 or str(model).startswith((".", "/")):
        raise ModelError(
            f"there is no model folder {model}; give a folder that `hybridvq train` wrote, a hub id, or one of the "
            f"models that come along: {', '.join(pretrained_names())}"
        )
    else:
        try:
            # Of tensors not the weights alone: the codec's tables lie beside them.
            path = Path(snapshot_download(str(model), allow_patterns=[CONFIG, "*.safetensors"], **(download or {})))
        except Exception as error:  # requests, the hub and the file system each raise their own
            raise ModelError(
                f"there is no folder {model} here, and no such model could be downloaded from the hub "
                f"({type(error).__name__}); check the name and the network"
            ) from error
    runs = sorted(path.glob("runs/*/model"))
    if runs and not (path / CONFIG).is_file():
        raise ModelError(f"{model} holds several runs; give one of them, such as {runs[0].parent}")
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ModelError(f"{model} holds no {name}; give a folder that `hybridvq train` wrote, or a hub id")
    return path


def weight_hash(folder: Path) -> str:
    """SHA-256 of a model folder's weights, in hexadecimal."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
