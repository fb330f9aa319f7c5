"""Priors on disk: config.json and model.safetensors in one folder, like a tokenizer's."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save

from hybridvq.devices import Device, find_device
from hybridvq.documents import read_json, to_json
from hybridvq.errors import ConfigError, ModelError
from hybridvq.pretrained import pretrained_folder, pretrained_names
from hybridvq.priors.base import Prior
from hybridvq.priors.registry import PRIORS, build_prior
from hybridvq.quantizers import TokenSpace
from hybridvq.ranges import Range
from hybridvq.tokenizer import CONFIG, WEIGHTS, model_folder, weight_hash
from hybridvq.weights import build_with_weights
from hybridvq.writing import whole_folder

FORMAT = 1
SIDE = Range(1, 2**12)  # positions of a grid
TOKENIZER = "tokenizer"  # the folder, within a prior's, of a copy of the tokenizer whose tokens it models


@dataclass(frozen=True)
class PriorConfig:
    """What config.json says, beside the weights.

    Attributes:
        prior: a name of `PRIORS`.
        options: that prior's arguments.
        shape: (h, w), the grid it was built for.
        classes: number of class labels, or None.
        space: `codebook_size`, `stages`, `gain`, `levels` and `dim` of the tokens, and `has_own_vectors`.
        tokenizer: SHA-256 of the weights of the tokenizer whose tokens they are.
        class_names: what the labels mean, or None.
        format: version of this layout.
    """

    prior: str
    options: dict[str, Any]
    shape: tuple[int, int]
    classes: int | None
    space: dict[str, Any]
    tokenizer: str
    class_names: tuple[str, ...] | None = None
    format: int = FORMAT

    def build(self) -> Prior:
        """The prior with weights, and a token space, that are yet to be loaded."""
        space = self.space
        kind: Literal["none", "levels", "float"] = space["gain"]
        levels = torch.zeros(space["stages"], space["levels"]) if kind == "levels" else None
        vectors = torch.zeros(space["codebook_size"], space["dim"])
        if space.get("has_own_vectors"):  # priors saved by 0.9 do not say
            vectors = vectors.repeat(space["stages"], 1, 1)
        blank = TokenSpace(space["codebook_size"], space["stages"], kind, levels, vectors)
        return build_prior(self.prior, blank, self.shape, self.classes, self.options)


def save_prior(
    prior: Prior, folder: str | Path, tokenizer_sha256: str, class_names: tuple[str, ...] | None = None
) -> None:
    """Write a prior to `folder`, as a whole.

    Args:
        tokenizer_sha256: of the weights of the tokenizer whose tokens it models, see `weight_hash`.
        class_names: what the labels mean.

    Raises:
        ConfigError: the prior is not one of `PRIORS`.
        OSError: it cannot be written.
    """
    name = next((name for name, kind in PRIORS.items() if type(prior) is kind), None)
    if name is None:
        raise ConfigError(f"a {type(prior).__name__} cannot be saved; it is none of the priors {', '.join(PRIORS)}")
    space = prior.space
    names = ("codebook_size", "stages", "gain", "levels", "dim", "has_own_vectors")
    parts = {name: getattr(space, name) for name in names}
    config = PriorConfig(name, prior.options, prior.shape, prior.classes, parts, tokenizer_sha256, class_names)
    with whole_folder(Path(folder)) as partial:
        (partial / CONFIG).write_bytes(to_json(asdict(config)))
        (partial / WEIGHTS).write_bytes(save({key: value.contiguous() for key, value in prior.state_dict().items()}))
        shutil.rmtree(folder, ignore_errors=True)


def save_with_tokenizer(
    prior: Prior, folder: Path, tokenizer: str | Path, class_names: tuple[str, ...] | None = None
) -> None:
    """As `save_prior`, with a copy of the tokenizer whose tokens it models; see `tokenizer_of_prior`."""
    source = model_folder(tokenizer)
    save_prior(prior, folder, weight_hash(source), class_names)
    (folder / TOKENIZER).mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(source / name, folder / TOKENIZER / name)


def load_prior(folder: str | Path, tokenizer: str | Path | None = None, *, device: Device = "cpu") -> Prior:
    """The prior saved in a folder, or in the `model` folder of a training run, or a bundled one; in eval mode.

    Args:
        tokenizer: folder, run or hub id of the tokenizer it is to be used with, which is then checked.
        device: as of `load_tokenizer`.

    Raises:
        ModelError: there is none, its files cannot be used, or it models the tokens of another tokenizer.
        ConfigError: there is no such device.
    """
    place = find_device(device)
    folder = prior_folder(folder)
    config = read_prior_config(folder)
    if tokenizer is not None and weight_hash(model_folder(tokenizer)) != config.tokenizer:
        raise ModelError(
            f"{folder} models the tokens of a tokenizer whose weights have SHA-256 {config.tokenizer[:12]}..., not of "
            f"{tokenizer}; give that tokenizer, or train a prior on the tokens of this one"
        )
    try:
        prior = build_with_weights(config.build, asdict(config), folder / WEIGHTS)
    except Exception as error:  # the safetensors reader, the constructor and torch each raise their own
        raise unusable(folder, error) from error
    return prior.to(place).eval()


def prior_folder(prior: str | Path) -> Path:
    """The folder itself, the `model` folder of a training run, or that of a bundled prior."""
    folder = Path(prior)
    if not folder.is_dir():
        return pretrained_folder(prior) or folder
    return folder / "model" if (folder / "model" / CONFIG).is_file() else folder


def tokenizer_of_prior(prior: str | Path) -> Path:
    """The folder of the tokenizer whose tokens a prior models: its own copy, or a bundled one.

    Raises:
        ModelError: there is no prior, or neither.
    """
    folder = prior_folder(prior)
    if (folder / TOKENIZER).is_dir():
        return folder / TOKENIZER
    wanted = read_prior_config(folder).tokenizer
    for name in pretrained_names():
        found = model_folder(name)
        if weight_hash(found) == wanted:
            return found
    raise ModelError(f"{prior} holds no copy of its tokenizer; name that with --model")


def read_prior_config(folder: Path) -> PriorConfig:
    """What the prior in `folder` is.

    Raises:
        ModelError: there is none, or its config.json cannot be used.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}; give a folder that `hybridvq train-prior` wrote")
    try:
        content = read_json(folder / CONFIG)
        if "prior" not in content:
            raise ValueError("its config.json names no prior")
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}; this version reads {FORMAT}")
        height, width = content["shape"]
        for side in (height, width):
            SIDE.check("shape", side)
        names = content["class_names"]
        return PriorConfig(**content | {"shape": (height, width), "class_names": names and tuple(names)})
    except Exception as error:  # what JSON and Python say of a file that could hold anything
        raise unusable(folder, error) from error


def unusable(folder: Path, error: Exception) -> ModelError:
    """The error that says what is wrong with a folder."""
    reason = " ".join(str(error).split())[:300]
    return ModelError(
        f"{folder} does not hold a prior that this version can load ({reason}); give a folder that "
        "`hybridvq train-prior` wrote"
    )
