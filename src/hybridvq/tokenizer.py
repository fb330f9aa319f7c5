"""An image tokenizer: encoder, quantizer, decoder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn

from hybridvq.errors import ConfigError, ModelError, ShapeError
from hybridvq.networks import Decoder, Encoder
from hybridvq.pretrained import pretrained_folder, pretrained_names
from hybridvq.quantizers import Quantized, Tokens, build_quantizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
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
):
    """Images to tokens and back.

        x ──► encoder ──► z ──► quantizer ──► tokens ──► dequantize ──► z_hat ──► decoder ──► x_hat
        (B,3,H,W)      (B,D,H/f,W/f)                                (B,D,H/f,W/f)          (B,3,H,W)

    `save_pretrained(folder)` writes model.safetensors and config.json; `from_pretrained(model)` reads them, from a
    folder, from a model that comes along, such as photos-f4, or from the hub.

    Args:
        dim: D, the width of the network and the length of a code.
        downsampling: f, a power of two.
        quantizer: a name of `hybridvq.quantizers.QUANTIZERS`.
        options: that quantizer's arguments, other than dim.

    Raises:
        ConfigError: an argument has no such value.
    """

    def __init__(
        self,
        dim: int = 64,
        downsampling: int = 4,
        quantizer: str = "vector",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ConfigError(f"dim is {dim}; it must be at least 1")
        self.dim, self.downsampling = dim, downsampling
        self.encoder = Encoder(dim, downsampling)
        try:
            self.quantizer = build_quantizer(dim, quantizer, options)
        except ConfigError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"one of the {quantizer} quantizer's options {options} has a value that cannot be used ({error})"
            ) from error
        self.decoder = Decoder(dim, downsampling)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub_options: Any) -> "Tokenizer":
        """As `load_tokenizer`; `hub_options` such as revision and token are those of huggingface-hub's mixin.

        Raises:
            ModelError: as `load_tokenizer`.
        """
        if hub_options:
            return super().from_pretrained(pretrained_model_name_or_path, **hub_options)
        return load_tokenizer(pretrained_model_name_or_path)

    def forward(self, x: Tensor) -> Reconstruction:
        """Reconstruct x (B, 3, H, W) in [-1, 1].

        Raises:
            ShapeError: as `encode`.
        """
        self._check(x)
        z = self.encoder(x)
        quantized = self.quantizer(z)
        return Reconstruction(self.decoder(quantized.z_hat), z, quantized)

    def encode(self, x: Tensor) -> Tokens:
        """The tokens of x (B, 3, H, W) in [-1, 1].

        Raises:
            ShapeError: x is not a batch of colour images whose sides are multiples of `downsampling`.
        """
        self._check(x)
        return self.quantizer(self.encoder(x)).tokens

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


def load_tokenizer(model: str | Path) -> Tokenizer:
    """A tokenizer in eval mode: that in a folder or a run's `model` folder, one that comes along, or one of the hub.

    Args:
        model: the folder, a name such as photos-f4 (see `pretrained_names`), or the hub id. A folder here is preferred.

    Raises:
        ModelError: there is none, or its files cannot be used.
    """
    folder = model_folder(model)
    try:
        config = json.loads((folder / CONFIG).read_text())
        tokenizer = Tokenizer(**config)
        tokenizer.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # the JSON and safetensors readers, the constructor and torch each raise their own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder} does not hold a tokenizer that this version can load ({reason}); give a folder that "
            "`hybridvq train` wrote"
        ) from error
    return tokenizer.eval()


def model_folder(model: str | Path) -> Path:
    """Where a model's two files are, downloaded if `model` is a hub id; see `load_tokenizer`.

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
            path = Path(snapshot_download(str(model), allow_patterns=[CONFIG, "*.safetensors"]))
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
