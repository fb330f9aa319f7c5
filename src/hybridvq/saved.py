"""Where saved models are and what they say of themselves, read without torch: a wrong name is told at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridvq.documents import read_json
from hybridvq.errors import ConfigError, ModelError, did_you_mean
from hybridvq.pretrained import pretrained_folder, pretrained_names
from hybridvq.ranges import Range

CONFIG, WEIGHTS = "config.json", "model.safetensors"
CHECKPOINT = Path("checkpoints") / "last.ckpt"  # of a run
TOKENIZER = "tokenizer"  # the folder, within a prior's, of a copy of the tokenizer whose tokens it models
FORMAT = 1  # of a prior's config.json
SIDE = Range(1, 2**12)  # positions of a grid
EVERY = "all"  # in place of the names of all classes


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run that has a checkpoint, and no model yet."""
    return (folder / CHECKPOINT).is_file() and not any((folder / place / CONFIG).is_file() for place in ("", "model"))


def check_begun(folder: Path, resume: bool) -> None:
    """Raise ConfigError if a folder holds a run that is not to be continued, or a model without its run."""
    if (folder / CHECKPOINT).is_file():
        if not resume:
            raise ConfigError(
                f"{folder} holds a run already; add --resume to continue it, choose another --out, or delete it"
            )
    elif (folder / "model").exists():
        raise ConfigError(f"{folder} holds a model already; choose another --out, or delete it")


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
        near = did_you_mean(str(model), pretrained_names())
        raise ModelError(
            f"there is no model folder {model}{near}; give a folder that `hybridvq train` wrote, a hub id, or one of "
            f"the bundled models: {', '.join(pretrained_names())}"
        )
    else:
        from huggingface_hub import snapshot_download

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
    if is_unfinished(path):
        raise ModelError(
            f"{model} holds a run that was interrupted, and no model yet; the command that began it finishes it with "
            "--resume, and `hybridvq evaluate` measures its last checkpoint"
        )
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ModelError(f"{model} holds no {name}; give a folder that `hybridvq train` wrote, or a hub id")
    return path


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


def prior_folder(prior: str | Path) -> Path:
    """The folder itself, the `model` folder of a training run, or that of a bundled prior."""
    folder = Path(prior)
    if not folder.is_dir():
        return pretrained_folder(prior) or folder
    return folder / "model" if (folder / "model" / CONFIG).is_file() else folder


def read_prior_config(folder: Path) -> PriorConfig:
    """What the prior in `folder` is.

    Raises:
        ModelError: there is none, or its config.json cannot be used.
    """
    if not folder.is_dir():
        priors = [name for name in pretrained_names() if name.endswith("-prior")]
        near, names = did_you_mean(str(folder), priors), " or ".join(priors)
        raise ModelError(
            f"there is no prior folder {folder}{near}; give a folder that `hybridvq train-prior` wrote, or {names}"
        )
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


def label_numbers(wanted: Sequence[str], config: PriorConfig, prior: str | Path) -> list[int]:
    """The numbers of classes given by name, or by number, or all of them, for a prior of this configuration.

    Raises:
        ConfigError: it has no such class, or none at all.
    """
    names = config.class_names or ()
    if wanted and not config.classes:
        raise ConfigError(f"{prior} knows no classes; leave out --labels, or train it with --conditional")
    if list(wanted) == [EVERY] and EVERY not in names:
        return list(range(config.classes or 0))
    numbers = []
    for name in wanted:
        number = names.index(name) if name in names else int(name) if name.isdecimal() else -1
        if not 0 <= number < (config.classes or 0):
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ConfigError(
                f"{prior} knows no class {name!r}{did_you_mean(name, names)}; it has {config.classes}, by name or "
                f"number, or all: {shown}"
            )
        numbers.append(number)
    return numbers
