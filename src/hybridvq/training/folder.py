"""The folder of a run: what it was begun with, its checkpoint, its model."""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from filecmp import cmpfiles
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from hybridvq.documents import parse_json, to_json
from hybridvq.errors import ConfigError, ModelError, TrainingError
from hybridvq.saved import CHECKPOINT, check_begun
from hybridvq.writing import remove_partial, sole_writer, whole_folder, write_whole

RECIPE = "recipe.json"
RUN = "hybridvq_run"  # in a checkpoint, what its run was begun with


@contextmanager
def own(folder: Path, first: bool) -> Iterator[None]:
    """Inside, the folder is this run's alone; a new one goes if the run fails before its first checkpoint.

    Only the `first` process of several writes, and so only it sees to that.

    Raises:
        ConfigError: another run is writing there, or the folder cannot be written.
    """
    if not first:
        yield
        return
    fresh, path = not folder.exists(), folder / CHECKPOINT
    with sole_writer(folder):
        for place in (folder, path.parent):
            remove_partial(place)
        try:
            yield
        except BaseException:
            if fresh and not path.exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def open_run(described: dict[str, Any], folder: Path, resume: bool, first: bool) -> dict[str, Any] | None:
    """Write recipe.json into the folder of a new run, or read the checkpoint of the run to continue.

    Raises:
        ConfigError: the folder holds a run and `resume` is not set, or cannot be written.
        ModelError: it holds a run of something else, or a checkpoint that cannot be read.
    """
    written, path = folder / RECIPE, folder / CHECKPOINT
    try:
        if resume and written.is_file():
            check_same(written, written.read_bytes(), described)
        check_begun(folder, resume)
        if path.is_file():
            checkpoint = read_checkpoint(path)
            if RUN in checkpoint:  # an earlier version did not say
                check_same(path, checkpoint[RUN], described)
            return checkpoint
        if first:
            write_whole(written, to_json(described, indent=2))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror or error}); choose another --out") from error
    return None


def check_same(path: Path, begun: str | bytes, described: dict[str, Any]) -> None:
    """Raise ModelError unless the run that a file belongs to was begun, as that file says, with what is described."""
    try:
        keys = find_differences(parse_json(begun), parse_json(to_json(described)))
    except ValueError as error:
        raise ModelError(f"{path} cannot be read ({error}); use another folder") from error
    if keys:
        raise ModelError(
            f"the run of {path} was begun with another recipe, seed or images (see {', '.join(keys)} there); use the "
            "same, or another folder"
        )


def find_differences(old: Any, new: Any, key: str = "") -> list[str]:
    """The dotted keys in which two nested mappings differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [key]
    keys = dict.fromkeys([*old, *new])
    return [name for k in keys for name in find_differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)]


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write what `torch.load` reads, moved into place when it is complete."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        ModelError: it is damaged, or not one of this project.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"global_step", "state_dict", "callbacks"} - checkpoint.keys()
    except Exception as error:  # the unpickler raises nearly anything
        raise ModelError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); delete it to start again"
        ) from error
    if missing:
        raise ModelError(f"{path} is a checkpoint without {', '.join(sorted(missing))}; delete it to start again")
    return checkpoint


def write_model(save: Callable[[Path], object], folder: Path) -> None:
    """Let `save` write `folder`/model, as a whole; one of the same weights stays, with what was added to it since.

    Raises:
        TrainingError: it cannot be written.
    """
    final = folder / "model"
    try:
        with whole_folder(final) as partial:
            save(partial)
            names = [path.relative_to(partial) for path in partial.rglob("*.safetensors")]
            if cmpfiles(final, partial, names, shallow=False)[0] == names:
                shutil.copytree(final, partial, dirs_exist_ok=True)
            shutil.rmtree(final, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{final} cannot be written ({error}); make room there and resume, which trains nothing again"
        ) from error
