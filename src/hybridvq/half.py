"""A model in half precision: half the bytes on disk, float32 again once it is loaded."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from hybridvq.errors import ConfigError, ModelError
from hybridvq.priors.saving import TOKENIZER
from hybridvq.tokenizer import CONFIG, WEIGHTS, model_folder
from hybridvq.writing import whole_folder, writable, write_whole

KEPT = ("quantizer.", "space.")  # what tokens stand for stays exact, and is small
NETWORKS = ("quantizer.structure.encoder.", "quantizer.structure.decoder.")  # but these are large, and not that


def save_half(model: str | Path, out: str | Path) -> Path:
    """Write a tokenizer or a prior to the new folder `out` with its weights rounded to float16; return their file.

    Rounded are float32 tensors of two dimensions and more: those of convolutions, linear layers and embeddings. What
    tokens stand for, and what is one number per channel, stays float32. Loaders need not be told. The weights change,
    and so does their hash: tables for the codec and priors are to be fitted to the folder that this wrote.

    Args:
        model: a run, a model folder, a bundled model, or a hub id.

    Raises:
        ConfigError: `out` exists, or cannot be written.
        ModelError: there is no such model, or a weight is too large for float16.
    """
    folder, out = model_folder(model), Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out, or remove it first")
    weights = {name: rounded(name, value) for name, value in load_file(folder / WEIGHTS).items()}
    lost = [name for name, value in weights.items() if not value.isfinite().all()]
    if lost:
        raise ModelError(f"{model} cannot be written in half precision: {lost[0]} holds values that float16 does not")
    with writable(out), whole_folder(out) as partial:
        write_whole(partial / WEIGHTS, save(weights))
        write_whole(partial / CONFIG, (folder / CONFIG).read_bytes())
        if (folder / TOKENIZER).is_dir():  # a prior's, whose hash it knows, and so as it is
            shutil.copytree(folder / TOKENIZER, partial / TOKENIZER)
    return out / WEIGHTS


def rounded(name: str, value: Tensor) -> Tensor:
    """The tensor of that name as it is kept."""
    kept = name.startswith(KEPT) and not name.startswith(NETWORKS)
    if kept or value.ndim < 2 or value.dtype != torch.float32:
        return value.contiguous()
    return value.half().contiguous()
