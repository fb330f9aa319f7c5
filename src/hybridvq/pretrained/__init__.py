"""Models that come with the package: a folder each beside this file, whose name is the model's."""

from pathlib import Path

HERE = Path(__file__).parent


def pretrained_names() -> list[str]:
    """The names of the models that come with the package, tokenizers and priors."""
    return sorted(folder.parent.name for folder in HERE.glob("*/config.json"))


def pretrained_folder(name: str | Path) -> Path | None:
    """The folder of the model of that name, or None if there is none."""
    return HERE / str(name) if str(name) in pretrained_names() else None
