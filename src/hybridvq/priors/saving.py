"""Priors on disk: config.json and model.safetensors in one folder, like a tokenizer's."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save

from hybridvq.devices import Device, find_device
from hybridvq.documents import to_json
from hybridvq.errors import ConfigError, ModelError
from hybridvq.pretrained import pretrained_names
from hybridvq.priors.base import Prior
from hybridvq.priors.registry import PRIORS, build_prior
from hybridvq.quantizers import TokenSpace
from hybridvq.saved import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    PriorConfig,
    model_folder,
    prior_folder,
    read_prior_config,
    unusable,
)
from hybridvq.tokenizer import weight_hash
from hybridvq.weights import build_with_weights
from hybridvq.writing import whole_folder


def build(config: PriorConfig) -> Prior:
    """The prior with weights, and a token space, that are yet to be loaded."""
    space = config.space
    kind: Literal["none", "levels", "float"] = space["gain"]
    levels = torch.zeros(space["stages"], space["levels"]) if kind == "levels" else None
    vectors = torch.zeros(space["codebook_size"], space["dim"])
    if space.get("has_own_vectors"):  # priors saved by 0.9 do not say
        vectors = vectors.repeat(space["stages"], 1, 1)
    blank = TokenSpace(space["codebook_size"], space["stages"], kind, levels, vectors)
    return build_prior(config.prior, blank, config.shape, config.classes, config.options)


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
        prior = build_with_weights(lambda: build(config), asdict(config), folder / WEIGHTS)
    except Exception as error:  # the safetensors reader, the constructor and torch each raise their own
        raise unusable(folder, error) from error
    return prior.to(place).eval()


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
