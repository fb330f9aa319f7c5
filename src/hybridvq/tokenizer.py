"""An image tokenizer: encoder, quantizer, decoder."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from PIL import Image
from torch import Tensor, nn

from hybridvq import tiles
from hybridvq.devices import Device, evaluating, find_device
from hybridvq.documents import read_json
from hybridvq.errors import ConfigError, ModelError, ShapeError
from hybridvq.networks import network_parts
from hybridvq.pixels import Picture, as_given, as_pixels, check_range
from hybridvq.quantizers import Quantized, Quantizer, Tokens, build_quantizer
from hybridvq.ranges import SIZE
from hybridvq.saved import CONFIG, WEIGHTS, model_folder
from hybridvq.settings import ModelSettings
from hybridvq.weights import build_with_weights

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
    folder, from a bundled model, such as photos-vq, or from the hub.

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
        self.quantizer = quantizer if isinstance(quantizer, Quantizer) else build_quantizer(dim, quantizer, options)
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
        device: Device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "Tokenizer":
        """Load a tokenizer, as `load_tokenizer` does.

        Args:
            revision, token, cache_dir, local_files_only, force_download: how a model of the hub is downloaded, as in
                huggingface-hub; folders and bundled models need none of it.

        Raises:
            ModelError, ConfigError: as `load_tokenizer`.
        """
        download = {"revision": revision, "token": token, "cache_dir": cache_dir}
        download |= {"local_files_only": local_files_only, "force_download": force_download}
        return load_tokenizer(model_folder(pretrained_model_name_or_path, download), device=device)

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

    @overload
    def encode(self, x: Tensor | Picture, step: float | Tensor | None = None) -> Tokens: ...
    @overload
    def encode(self, x: Sequence[Picture], step: float | Tensor | None = None) -> Tokens | list[Tokens]: ...
    def encode(
        self, x: Tensor | Picture | Sequence[Picture], step: float | Tensor | None = None
    ) -> Tokens | list[Tokens]:
        """The tokens of images.

        Args:
            x: (B, 3, H, W) in [-1, 1], with sides that are multiples of `downsampling`; or the path of a file, a Pillow
                image, an array (H, W, 3) of uint8 or of floats in [-1, 1], or a list of these, of any size. They are
                extended by reflection to the grid, large ones are computed in tiles, and all in evaluation mode and
                without gradients.
            step: of a hybrid quantizer, what coefficients are rounded to, one for all images or (B,); see
                `hybridvq.quantizers.step_of_quality`.

        Returns:
            One `Tokens` for all images; a list of them, of one image each, for a list of images of several sizes.

        Raises:
            ConfigError: a step is given, and the quantizer has none or it is not positive.
            ShapeError: a tensor is not a batch of color images, of floats, whose sides are multiples of `downsampling`,
                an array has another shape or type, or a list is empty.
            DataError: values lie outside of [-1, 1], or an image cannot be read.
        """
        if isinstance(x, Tensor):
            return self.quantize(x, step).tokens
        pixels = [as_pixels(image) for image in as_list(x)]
        parts = [tiles.encode(self, batch, self._chooser(step)) for batch in tiles.batches(pixels)]
        if len(set(map(tiles.size_of, pixels))) == 1:
            return Tokens.cat(parts)
        return [one for part in parts for one in part]

    @overload
    def reconstruct(self, x: Tensor, step: float | Tensor | None = None) -> Tensor: ...
    @overload
    def reconstruct(self, x: np.ndarray, step: float | Tensor | None = None) -> np.ndarray: ...
    @overload
    def reconstruct(  # type: ignore[overload-overlap]
        self, x: str | Path | Image.Image, step: float | Tensor | None = None
    ) -> Image.Image: ...
    @overload
    def reconstruct(
        self, x: Sequence[Picture], step: float | Tensor | None = None
    ) -> list[Image.Image | np.ndarray]: ...
    def reconstruct(
        self, x: Tensor | Picture | Sequence[Picture], step: float | Tensor | None = None
    ) -> Tensor | Image.Image | np.ndarray | list[Image.Image | np.ndarray]:
        """Images through tokens and back, in evaluation mode and without gradients.

        Args:
            x: what `encode` takes, and tensors (B, 3, H, W) of any size.
            step: as in `encode`.

        Returns:
            The kind that was given, of the same size: a Pillow image for a path or a Pillow image, an array of the same
            type for an array, a tensor for a tensor, and a list for a list.

        Raises:
            ConfigError, ShapeError, DataError: as `encode`.
        """
        if isinstance(x, Tensor):
            return self._reconstruct_tensor(x, step)
        images = as_list(x)
        batches = tiles.batches([as_pixels(image) for image in images])
        done = [pixels for batch in batches for pixels in tiles.reconstruct(self, batch, self._chooser(step))]
        back = [as_given(pixels, image) for pixels, image in zip(done, images, strict=True)]
        return back if isinstance(x, list | tuple) else back[0]

    def _reconstruct_tensor(self, x: Tensor, step: float | Tensor | None) -> Tensor:
        if x.ndim != 4 or not x.numel():
            self._check(x)
        height, width = x.shape[2:]
        rows, columns = (
            torch.from_numpy(tiles.reflect(side, self.downsampling)).to(x.device) for side in (height, width)
        )
        with evaluating(self), torch.no_grad():
            return self.decode(self.encode(x[..., rows[:, None], columns], step))[..., :height, :width]

    def _chooser(self, step: float | Tensor | None) -> Callable[[Tensor], Tokens]:
        return lambda z: self.quantizer(z, step).tokens

    def quantize(self, x: Tensor, step: float | Tensor | None = None) -> Quantized:
        """Quantize images as `encode` does, and return all that the quantizer gives.

        Raises:
            ConfigError, ShapeError, DataError: as `encode` of a tensor.
        """
        self._check(x)
        check_range(x)
        quantized: Quantized = self.quantizer(self.encoder(x), step)
        return quantized

    def decode(self, tokens: Tokens) -> Tensor:
        """x_hat (B, 3, H, W) in [-1, 1], from the tokens alone."""
        return self.decoder(self.quantizer.dequantize(tokens))

    def check_size(self, size: int) -> None:
        """Raise ShapeError unless images of `size` pixels per side divide into whole positions."""
        f = self.downsampling
        if size % f or size < f:
            near = max(1, round(size / f)) * f
            raise ShapeError(
                f"images of {size} pixels per side do not divide into positions of {f}x{f}; "
                f"choose a size such as {near}"
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


def as_list(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """The images of a list, or the one given as a list; raises ShapeError where there is none."""
    if not isinstance(images, list | tuple):
        return [images]  # type: ignore[list-item]
    if not images:
        raise ShapeError("the list of images is empty; give at least one image")
    return images


def load_tokenizer(
    model: str | Path,
    *,
    device: Device = "cpu",
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    quantizer: Quantizer | None = None,
) -> Tokenizer:
    """A tokenizer in eval mode: that in a folder or a run's `model` folder, a bundled one, or one of the hub.

    Args:
        model: the folder, a name such as photos-vq (see `pretrained_names`), or the hub id. A folder here is preferred.
        device: where it computes, such as cpu, cuda, cuda:1, mps or auto, see `hybridvq.devices.find_device`.
        encoder, decoder, quantizer: the modules that the tokenizer was made with, where it was; they take on the
            weights of the folder.

    Raises:
        ModelError: there is none, its files cannot be used, or it was made with a module that is not given.
        ConfigError: there is no such device.
    """
    place = find_device(device)
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
    return tokenizer.to(place).eval()


def check_given(config: dict[str, Any], folder: Path) -> None:
    """Raise ModelError if a part of the tokenizer in `folder` was given as a module, and still is to be."""
    for part in ("encoder", "decoder", "quantizer"):
        if isinstance(value := config.get(part), dict):
            raise ModelError(
                f"the tokenizer in {folder} was made with a module {value.get(GIVEN)} as its {part}; give one like it: "
                f"load_tokenizer(folder, {part}=...)"
            )


def weight_hash(folder: Path) -> str:
    """SHA-256 of a model folder's weights, in hexadecimal."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
