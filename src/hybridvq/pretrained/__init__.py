"""Bundled models: a folder each beside this file, whose name is the model's."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def pretrained_names() -> list[str]:
    """The names of the bundled models, tokenizers and priors."""
    return sorted(folder.parent.name for folder in HERE.glob("*/config.json"))


def pretrained_folder(name: str | Path) -> Path | None:
    """The folder of the model of that name, or None if there is none."""
    return HERE / str(name) if str(name) in pretrained_names() else None


def pretrained_summary(name: str) -> str:
    """The first sentence of a bundled model's card."""
    text = (HERE / name / "README.md").read_text(encoding="utf-8").split(f"\n# {name}\n")[1]
    return re.split(r"(?<=\.)\s|:", " ".join(text.split()))[0].rstrip(".").replace("`", "")
