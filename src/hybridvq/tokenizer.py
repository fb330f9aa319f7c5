"""An image tokenizer: encoder, quantizer, decoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from hybridvq.errors import HybridVQError, ModelError, ShapeError
from hybridvq.networks import Decoder, Encoder
from hybridvq.quantizers import Quantized, Tokens, build_quantizer


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


class Tokenizer(nn.Module, PyTorchModelHubMixin):
    """Images to tokens and back.

        x ──► encoder ──► z ──► quantizer ──► tokens ──► dequantize ──► z_hat ──► decoder ──► x_hat
        (B,3,H,W)      (B,D,H/f,W/f)                                (B,D,H/f,W/f)          (B,3,H,W)

    `save_pretrained(folder)` writes model.safetensors and config.json; `from_pretrained(folder or hub id)` reads them.

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
        self.dim, self.downsampling = dim, downsampling
        self.encoder = Encoder(dim, downsampling)
        self.quantizer = build_quantizer(dim, quantizer, options)
        self.decoder = Decoder(dim, downsampling)

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

    def _check(self, x: Tensor) -> None:
        f = self.downsampling
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % f or x.shape[3] % f:
            raise ShapeError(
                f"x has shape {tuple(x.shape)}; this tokenizer takes (batch, 3, height, width) with height and width "
                f"multiples of {f}"
            )


def load_tokenizer(model: str | Path) -> Tokenizer:
    """The tokenizer saved in a folder, in the `model` folder of a training run, or under a hub id; in eval mode.

    Raises:
        ModelError: there is none, or its files cannot be used.
    """
    path = Path(model)
    if path.is_dir():
        path = path / "model" if (path / "model" / "config.json").is_file() else path
        for name in ("config.json", "model.safetensors"):
            if not (path / name).is_file():
                raise ModelError(f"{model} holds no {name}; give a folder that `hybridvq train` wrote, or a hub id")
    elif path.exists() or str(model).count("/") != 1 or str(model).startswith((".", "/")):
        raise ModelError(f"there is no model folder {model}; give a folder that `hybridvq train` wrote, or a hub id")
    try:
        return Tokenizer.from_pretrained(str(path)).eval()
    except HybridVQError as error:
        raise ModelError(f"{model} does not describe a tokenizer of this version: {error}") from error
    except Exception as error:  # the hub, the JSON and the safetensors readers each raise kinds of their own
        raise ModelError(f"{model} cannot be loaded as a tokenizer ({' '.join(str(error).split())[:200]})") from error
