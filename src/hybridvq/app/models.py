"""The models of a page, loaded once and only read afterwards."""

from dataclasses import dataclass, replace
from pathlib import Path

from hybridvq.codec import Codec
from hybridvq.devices import Device
from hybridvq.errors import CodecError, ConfigError
from hybridvq.priors import Prior, load_prior, prior_folder, read_prior_config, tokenizer_of_prior
from hybridvq.quantizers import TokenSpace
from hybridvq.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Model:
    """A tokenizer, what the page calls it, its codec, or why it has none, and what its tokens are."""

    title: str
    tokenizer: Tokenizer
    codec: Codec | None
    problem: str
    space: TokenSpace


@dataclass(frozen=True)
class PriorModel:
    """A prior, the tokenizer whose tokens it draws, and the names of its classes if it has some."""

    prior: Prior
    tokenizer: Tokenizer
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Models:
    """All that a page shows: the model, what it is compared with, and what draws new images."""

    model: Model
    baseline: Model
    prior: PriorModel


def load_models(model: str, baseline: str, prior: str, device: Device = "auto") -> Models:
    """Load everything, on the device of that name.

    Raises:
        ModelError: one cannot be loaded.
        ConfigError: a tokenizer's tokens are not a code, or a code and a gain, at every position.
    """
    own, other = load_model(model, device), load_model(baseline, device)
    if own.title == other.title:
        own, other = replace(own, title=model), replace(other, title=baseline)
    return Models(own, other, load_prior_model(prior, device))


def load_model(name: str, device: Device = "auto") -> Model:
    """A tokenizer, with its codec where it has tables, called by the last part of its name.

    Raises:
        ModelError: it cannot be loaded.
        ConfigError: its tokens are of another kind.
    """
    codec, problem = None, ""
    try:
        codec = Codec.load(name, device)
        tokenizer = codec.tokenizer
    except CodecError as error:
        tokenizer, problem = load_tokenizer(name, device=device), str(error)
    space = tokenizer.quantizer.space()
    if space.obstacle:
        raise ConfigError(
            f"{name} has no codebook that can be shown; give a vector, projected, gain-shape or fsq tokenizer"
        )
    return Model(Path(name).name, tokenizer, codec, problem, space)


def load_prior_model(name: str, device: Device = "auto") -> PriorModel:
    """A prior and the tokenizer whose tokens it models.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    config = read_prior_config(prior_folder(name))
    classes = config.class_names or tuple(map(str, range(config.classes or 0)))
    model = tokenizer_of_prior(name)
    return PriorModel(load_prior(name, model, device=device), load_tokenizer(model, device=device), classes)
