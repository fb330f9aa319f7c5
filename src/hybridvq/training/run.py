"""Train a tokenizer."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hybridvq.data import EvalBatches, Images, Stream, open_side
from hybridvq.devices import Device, find_device
from hybridvq.documents import read_json
from hybridvq.errors import ConfigError, ModelError
from hybridvq.launch import find_processes
from hybridvq.losses import RECONSTRUCTION, TotalLoss, build_loss
from hybridvq.recipe import load_recipe
from hybridvq.saved import CHECKPOINT
from hybridvq.settings import DataSettings, Recipe, changed
from hybridvq.tokenizer import GIVEN, Tokenizer
from hybridvq.training.callbacks import TokenizerRecorder
from hybridvq.training.card import model_card
from hybridvq.training.engine import resolve_precision, run, seed_everything
from hybridvq.training.folder import RECIPE, own, read_checkpoint
from hybridvq.training.history import History
from hybridvq.training.module import TokenizerTraining
from hybridvq.training.watch import Watch

EVAL_BATCH, EVAL_IMAGES = 64, 2048


def train(
    recipe: Recipe | str | Path,
    train_images: Images | Stream | str | Path = "photos",
    test_batches: EvalBatches | None = None,
    out: str | Path = "runs/mine",
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    watch: Literal["off", "warn", "stop"] = "warn",
    devices: int | Literal["auto"] | None = None,
    num_nodes: int | None = None,
    device: Device = "auto",
    tokenizer: Tokenizer | None = None,
    loss: nn.Module | None = None,
    *,
    size: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    say: Callable[[str], object] | None = None,
) -> tuple[Tokenizer, History]:
    """Train `recipe` on `train_images`, or a stream of them, measuring `test_batches` on the way and at the end.

    A recipe may be a name or a YAML file, and the images what `hybridvq train --data` takes: `size` is then the side of
    the crops, 32 if not given, and the first 2,048 held-out images are measured where no `test_batches` are given.
    `steps` and `batch_size` replace those of the recipe.

    Writes into `out`: recipe.json, checkpoints/last.ckpt, what the logger writes, such as tensorboard/, and, at the
    end, model/ (safetensors, with a model card).
    With `resume`, continues from the checkpoint there, to the very weights an uninterrupted run would have; a run that
    is finished is returned as it is. A `watch` says on stderr when codes collapse, a gain runs away or the loss spikes,
    and may stop the run. A run that fails before its first checkpoint leaves no new folder behind, and while one writes
    into `out`, another is refused.

    With several `devices` (auto: all GPUs) or `num_nodes`, as many processes share each batch and come to the weights
    of one, to rounding. torchrun and SLURM start them and tell their number, which need not be repeated; otherwise the
    first one starts the others of its machine, by running the command of this process again. All return the same; only
    the first writes.

    `device` is the kind of device, such as cpu or cuda, or for one process also which, such as cuda:1.

    A `tokenizer`, such as one with modules of your own, is trained in place of the one that the recipe describes, and
    by a `loss` in place of its loss: a module that takes x_hat and x (B, 3, H, W) in [-1, 1] and returns a number, or
    one for each image, see `hybridvq.losses`.

    `say` is given two lines before the first step: the images, and what is trained on them and where.

    Raises:
        ConfigError: the recipe does not fit the images or the devices, `out` holds a run and `resume` is not set, or
            another run is writing there.
        ModelError: `resume` finds a run of another recipe, seed or images, or a checkpoint that cannot be read.
        TrainingError: a loss is not finite, the watch stopped the run, the disk cannot be written, or another process
            stopped (LostProcessError).
        KeyboardInterrupt: Ctrl-C; the message says how to continue.
    """
    find_device(device)
    folder, recipe = Path(out), chosen_recipe(recipe, steps, batch_size)
    train_images, test_batches = open_sides(train_images, test_batches, size)
    processes = find_processes(devices, num_nodes)
    described = identify(recipe, seed, train_images)
    if tokenizer is None:
        tokenizer = build_tokenizer(recipe, seed, train_images.size)
    else:
        described["model"] = tokenizer.config
    tokenizer.check_size(train_images.size)
    if loss is not None:
        described["training"]["loss"] = {GIVEN: type(loss).__name__}
    history = History()
    module = TokenizerTraining(tokenizer, recipe.training, train_images, seed, loss_of(recipe, seed, loss))
    watching = None if watch == "off" else Watch(tokenizer.quantizer.codebook_size, recipe.group == "published")
    recorder = TokenizerRecorder(
        recipe.training, history, folder / CHECKPOINT, test_batches, watching, watch == "stop", recipe.title
    )

    def save(path: Path) -> None:
        tokenizer.save_pretrained(path)
        card = model_card(recipe, seed, train_images, test_batches, tokenizer, history)
        (path / "README.md").write_text(card, encoding="utf-8")

    def begin() -> None:
        for line in introduce(recipe, tokenizer, train_images, test_batches, processes.world_size, device):
            if say is not None:
                say(line)

    with own(folder, processes.rank == 0):
        run(module, recorder, described, folder, processes, save, resume, progress, device, begin)
    return tokenizer, history


def introduce(
    recipe: Recipe,
    tokenizer: Tokenizer,
    images: Images | Stream,
    test_batches: EvalBatches,
    processes: int,
    device: Device,
) -> tuple[str, str]:
    """What is about to be trained: on which images, how large, where and how precisely."""
    count = "a stream of" if isinstance(images, Stream) else f"{len(images):,}"
    place, schedule = find_device(device), recipe.training
    where = f"{place}" if processes == 1 else f"{processes} processes of {place.type}"
    parameters = sum(p.numel() for p in tokenizer.parameters())
    return (
        f"data: {images.name}, {count} images of {images.size}x{images.size} pixels, {test_batches.total:,} to test on",
        f"{recipe.title}: {parameters / 1e6:.2f} million parameters, {schedule.steps:,} steps of {schedule.batch_size} "
        f"images, on {where} at {resolve_precision(schedule.precision, place)}",
    )


def load_checkpoint(folder: Path) -> tuple[Tokenizer, int]:
    """The tokenizer of a run's last checkpoint, in eval mode, and the steps that it was trained for.

    Raises:
        ModelError: a file of the run cannot be read, or its tokenizer was made with modules of one's own.
    """
    checkpoint = read_checkpoint(folder / CHECKPOINT)
    state, prefix = checkpoint["state_dict"], "averaged.module."
    if not any(key.startswith(prefix) for key in state):
        prefix = "tokenizer."
    try:
        described = read_json(folder / RECIPE)
        tokenizer = Tokenizer(**described["model"] | {"size": described["data"]["size"]})
        tokenizer.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    except Exception as error:  # files that could hold anything
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the checkpoint of {folder} cannot be measured ({reason}); finish it with --resume"
        ) from error
    return tokenizer.eval(), checkpoint["global_step"]


def chosen_recipe(recipe: Recipe | str | Path, steps: int | None, batch_size: int | None) -> Recipe:
    """The recipe of that name or file, with other numbers where they are given."""
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe))
    return replace(chosen, training=changed(chosen.training, steps=steps, batch_size=batch_size))


def open_sides(
    images: Images | Stream | str | Path, test_batches: EvalBatches | None, size: int | None
) -> tuple[Images | Stream, EvalBatches]:
    """The training images and the batches of held-out ones, opened where they are only named.

    Raises:
        ConfigError: a size is given with images that are open, or no batches with a stream.
        DataError: the images cannot be read.
    """
    if isinstance(images, str | Path):
        data = DataSettings.of(images, size)
        if test_batches is None:
            test_batches = EvalBatches(open_side(data, "test"), EVAL_BATCH, EVAL_IMAGES)
        return open_side(data, "train"), test_batches
    if size is not None and size != images.size:
        raise ConfigError(f"size is {size}, and the images were opened at {images.size}; leave it out")
    if test_batches is None:
        raise ConfigError("test_batches are needed beside images that are open; give an EvalBatches of held-out images")
    return images, test_batches


def build_tokenizer(recipe: Recipe, seed: int, size: int | None = None) -> Tokenizer:
    """The untrained tokenizer, whose weights follow from the seed, for images of `size` pixels per side.

    Raises:
        ConfigError: the recipe describes none, or the seed is out of range.
    """
    seed_everything(seed)
    tokenizer = Tokenizer(**asdict(recipe.model), size=size)
    tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return tokenizer


def loss_of(recipe: Recipe, seed: int, given: nn.Module | None = None) -> TotalLoss:
    """The `given` loss, or the recipe's, whose first weights follow from the seed.

    Raises:
        ConfigError: the recipe asks for what there is not.
    """
    if given is not None:
        return TotalLoss({RECONSTRUCTION: given}, title=type(given).__name__)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_loss(recipe.training.loss)


def identify(recipe: Recipe, seed: int, images: Images | Stream) -> dict[str, Any]:
    """What a run's weights follow from, as recipe.json has it."""
    data: dict[str, Any] = {"fingerprint": images.fingerprint, "size": images.size}
    if isinstance(images, Stream):
        # The order of a stream depends on these too.
        data |= {"shuffle_buffer": images.shuffle_buffer, "workers": images.workers}
    return {"model": asdict(recipe.model), "training": recipe.training.identity(), "seed": seed, "data": data}
