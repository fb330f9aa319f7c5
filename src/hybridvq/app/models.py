"""The models of a page, loaded once and only read afterwards."""

from dataclasses import dataclass, replace
from pathlib import Path

from hybridvq.codec import Codec
from hybridvq.devices import Device
from hybridvq.errors import CodecError, ConfigError
from hybridvq.priors import Prior, load_prior, tokenizer_of_prior
from hybridvq.quantizers import TokenSpace
from hybridvq.saved import prior_folder, read_prior_config
from hybridvq.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Model:
    """A tokenizer, what the page calls it, its codec, or why it has none, and what its tokens are."""

    title: str
    tokenizer: Tokenizer
    codec: Codec | None
    problem: str
    space: TokenSpace

    @property
    def is_hybrid(self) -> bool:
        """Whether its tokens are codes and coefficients."""
        return self.tokenizer.quantizer.counts_bits


@dataclass(frozen=True)
class PriorModel:
    """A prior, the tokenizer whose tokens it draws, and the names of its classes if it has some."""

    prior: Prior
    tokenizer: Tokenizer
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Models:
    """All that a page shows: two models side by side, what draws new images, and a hybrid model, which compresses."""

    model: Model
    baseline: Model
    prior: PriorModel
    hybrid: Model

    @property
    def named(self) -> dict[str, Model]:
        """Those that compress, by title."""
        return {model.title: model for model in (self.hybrid, self.model, self.baseline)}


def load_models(model: str, baseline: str, prior: str, hybrid: str, device: Device = "auto") -> Models:
    """Load everything, on the device of that name.

    Raises:
        ModelError: one cannot be loaded.
        ConfigError: the tokens of `model` or `baseline` are not a code, or a code and a gain, at every position, or
            those of `hybrid` not codes and coefficients.
    """
    own, other, both = load_model(model, device), load_model(baseline, device), load_model(hybrid, device, True)
    if len({own.title, other.title, both.title}) < 3:
        own, other, both = (replace(m, title=t) for m, t in ((own, model), (other, baseline), (both, hybrid)))
    return Models(own, other, load_prior_model(prior, device), both)


def load_model(name: str, device: Device = "auto", is_hybrid: bool = False) -> Model:
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
    made = Model(Path(name).name, tokenizer, codec, problem, tokenizer.quantizer.space())
    if is_hybrid and not made.is_hybrid:
        raise ConfigError(f"{name} is no hybrid tokenizer; give one such as photos, and others as model or baseline")
    if not is_hybrid and made.space.obstacle:
        raise ConfigError(
            f"{name} has no codebook that can be shown; give a vector, projected, gain-shape or fsq tokenizer"
            f"{', and this one as hybrid' if made.is_hybrid else ''}"
        )
    return made


def load_prior_model(name: str, device: Device = "auto") -> PriorModel:
    """A prior and the tokenizer whose tokens it models.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    config = read_prior_config(prior_folder(name))
    classes = config.class_names or tuple(map(str, range(config.classes or 0)))
    model = tokenizer_of_prior(name)
    return PriorModel(load_prior(name, model, device=device), load_tokenizer(model, device=device), classes)
