"""A run from its folder to its model."""

import json
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors import SafetensorError

from hybridvq.data import EvalBatches, Images, Stream
from hybridvq.errors import ConfigError, ModelError, TrainingError
from hybridvq.launch import Processes, find_processes
from hybridvq.settings import Recipe
from hybridvq.tokenizer import Tokenizer
from hybridvq.training.callbacks import ProgressBar, Recorder, WholeCheckpoints
from hybridvq.training.history import History
from hybridvq.training.module import TokenizerTraining
from hybridvq.training.processes import OneOfSeveral, environment, joined
from hybridvq.training.watch import Watch
from hybridvq.writing import write_whole

CHECKPOINT = Path("checkpoints") / "last.ckpt"
QUIET = (
    "does not have many workers",
    "dataloader is not resumable",  # ours is: StepSampler
    "smaller than the logging interval",
    "treespec, LeafSpec",
)


def train(
    recipe: Recipe,
    train_images: Images | Stream,
    test_batches: EvalBatches,
    folder: Path,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    watch: Literal["off", "warn", "stop"] = "warn",
    devices: int | Literal["auto"] | None = None,
    num_nodes: int | None = None,
) -> tuple[Tokenizer, History]:
    """Train `recipe` on `train_images`, or a stream of them, measuring `test_batches` on the way and at the end.

    Writes into `folder`: recipe.json, checkpoints/last.ckpt, tensorboard/ and, at the end, model/ (safetensors).
    With `resume`, continues from the checkpoint there, to the very weights an uninterrupted run would have; a run that
    is finished is returned as it is. A `watch` says on stderr when codes collapse, a gain runs away or the loss spikes,
    and may stop the run. A run that fails before its first checkpoint leaves no new folder behind.

    With several `devices` (auto: all GPUs) or `num_nodes`, as many processes share each batch and come to the weights
    of one, to rounding. torchrun and SLURM start them and tell their number, which need not be repeated; otherwise the
    first one starts the others of its machine, by running the command of this process again. All return the same; only
    the first writes.

    Raises:
        ConfigError: the recipe does not fit the images or the devices, or `folder` holds a run and `resume` is not set.
        ModelError: `resume` finds a run of another recipe, seed or images, or a checkpoint that cannot be read.
        TrainingError: a loss is not finite, the watch stopped the run, the disk cannot be written, or another process
            stopped (LostProcessError).
        KeyboardInterrupt: Ctrl-C; the message says how to go on.
    """
    processes = find_processes(devices, num_nodes)
    first = processes.rank == 0
    tokenizer = build_tokenizer(recipe, seed)
    tokenizer.check_size(train_images.size)
    fresh = first and not folder.exists()
    described = describe(recipe, seed, train_images)
    checkpoint = begin(described, folder, resume, first)
    history, path = History(), folder / CHECKPOINT
    module = TokenizerTraining(tokenizer, recipe.training, train_images, seed)
    watching = None if watch == "off" else Watch(tokenizer.quantizer.codebook_size)
    recorder = Recorder(recipe.training, history, test_batches, path, watching, watch == "stop", recipe.title)
    callbacks: list[Callback] = []
    if processes.world_size > 1:
        callbacks.append(OneOfSeveral(f"{described!r} from step {checkpoint['global_step'] if checkpoint else 0}"))
    if progress and first and sys.stderr.isatty():
        callbacks.append(ProgressBar(recipe.training.steps))
    finished = checkpoint is not None and checkpoint["global_step"] >= recipe.training.steps
    try:
        with nullcontext() if finished else joined(processes, path):
            if finished:
                assert checkpoint is not None
                module.load_state_dict(checkpoint["state_dict"])
                recorder.load_state_dict(checkpoint["callbacks"][recorder.state_key])
            else:
                fit(module, recorder, folder, checkpoint, callbacks, processes)
            tokenizer.eval()
            if first:
                save_model(tokenizer, folder)
    except BaseException:
        if fresh and not path.exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return tokenizer, history


def build_tokenizer(recipe: Recipe, seed: int) -> Tokenizer:
    """The untrained tokenizer, whose weights follow from the seed.

    Raises:
        ConfigError: the recipe describes none, or the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; it must lie between 0 and {2**32 - 1}")
    L.seed_everything(seed, verbose=False)
    tokenizer = Tokenizer(**asdict(recipe.model))
    tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return tokenizer


def describe(recipe: Recipe, seed: int, images: Images | Stream) -> bytes:
    """What a run's weights follow from, as recipe.json has it."""
    settings = {"model": asdict(recipe.model), "training": asdict(recipe.training), "seed": seed}
    data = {"fingerprint": images.fingerprint, "size": images.size}
    if isinstance(images, Stream):
        # The order of a stream depends on these too.
        data |= {"shuffle_buffer": images.shuffle_buffer, "workers": images.workers}
    return (json.dumps(settings | {"data": data}, indent=2) + "\n").encode()


def begin(text: bytes, folder: Path, resume: bool, first: bool) -> dict[str, Any] | None:
    """Write recipe.json into the folder of a new run, or read the checkpoint of the run to go on with.

    Raises: as `train`.
    """
    written, path = folder / "recipe.json", folder / CHECKPOINT
    try:
        if resume and written.is_file() and written.read_bytes() != text:
            keys = ", ".join(differing(json.loads(written.read_bytes()), json.loads(text)))
            raise ModelError(
                f"{folder} was begun with another recipe, seed or images (see {keys or 'the layout'} of {written.name} "
                "there); use the same, or another folder"
            )
        has_checkpoint, has_model = path.is_file(), (folder / "model").exists()
        if has_checkpoint and not resume:
            raise ConfigError(
                f"{folder} holds a run already; add --resume to go on with it, choose another --out, or delete it"
            )
        if has_model and not has_checkpoint:
            raise ConfigError(f"{folder} holds a model already; choose another --out, or delete it")
        if has_checkpoint:
            return read_checkpoint(path)
        if first:
            write_whole(written, text)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror or error}); choose another --out") from error
    return None


def differing(old: Any, new: Any, key: str = "") -> list[str]:
    """The dotted keys in which two nested mappings differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [key]
    keys = dict.fromkeys([*old, *new])
    return [name for k in keys for name in differing(old.get(k), new.get(k), f"{key}.{k}" if key else k)]


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


def fit(
    module: TokenizerTraining,
    recorder: Recorder,
    folder: Path,
    checkpoint: dict[str, Any] | None,
    callbacks: list[Callback],
    processes: Processes,
) -> None:
    """Run the steps that are left.

    Raises: as `train`.
    """
    first = checkpoint["global_step"] if checkpoint else 0
    settings = module.settings
    with quiet_lightning():
        trainer = L.Trainer(
            max_steps=settings.steps,
            precision=resolve_precision(settings.precision),
            # Of steps that a killed run logged after its last checkpoint, TensorBoard shows those of the second time.
            logger=TensorBoardLogger(folder, name="", version="tensorboard", purge_step=first),
            callbacks=[recorder, *callbacks],
            plugins=[WholeCheckpoints(), environment(processes)],
            strategy="ddp" if processes.world_size > 1 else "auto",
            devices=processes.devices,
            num_nodes=processes.num_nodes,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            log_every_n_steps=20,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, ckpt_path=recorder.checkpoint if checkpoint else None, weights_only=True)
        # Lightning makes a SystemExit of Ctrl-C, after turning the signal off.
        except (SystemExit, KeyboardInterrupt) as stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            saved = recorder.checkpoint.exists()
            advice = "add --resume to go on from the last checkpoint" if saved else "no checkpoint was written yet"
            raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}; {advice}") from stop
        except OSError as error:
            raise TrainingError(f"the run in {folder} had to stop ({error})") from error


def save_model(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `folder`/model, as a whole.

    Raises:
        TrainingError: it cannot be written.
    """
    partial, final = folder / "model.partial", folder / "model"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        tokenizer.save_pretrained(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingError(
            f"{final} cannot be written ({error}); make room there and resume, which trains nothing again"
        ) from error


def resolve_precision(precision: str) -> Any:
    """`auto` to bf16-mixed where the device multiplies bfloat16 natively, else to 32-true; others as they are."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.backends.mps.is_available():
        native = False
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's hints while inside: they are about its own options, which a user here does not set."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for text in QUIET:
            warnings.filterwarnings("ignore", message=f".*{text}")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
