"""What the runs of tokenizers and priors share: steps from the last checkpoint to the end, by Lightning."""

import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from hybridvq.devices import Device, find_device
from hybridvq.errors import ConfigError, TrainingError
from hybridvq.launch import Processes
from hybridvq.saved import CHECKPOINT
from hybridvq.training.callbacks import ProgressBar, ProgressLines, Recorder, WholeCheckpoints
from hybridvq.training.folder import open_run, write_model
from hybridvq.training.loggers import check_loggers, start_loggers
from hybridvq.training.module import Training
from hybridvq.training.processes import OneOfSeveral, environment, join

QUIET = (
    "dataloader is not resumable",  # ours is: BatchLoader
    "smaller than the logging interval",
    "treespec, LeafSpec",
    "in eval mode at the start",  # the terms of a loss that only judge
)


def run(
    module: Training,
    recorder: Recorder,
    described: dict[str, Any],
    folder: Path,
    processes: Processes,
    save: Callable[[Path], object],
    resume: bool,
    progress: bool,
    device: Device,
    begin: Callable[[], None] | None = None,
) -> None:
    """Train `module` from its start, or the last checkpoint in `folder`, to the end, and let `save` write its model.

    The folder is to be this run's own, see `hybridvq.training.folder.own`. The first process calls `begin` before its
    first step.

    Raises: as `train`.
    """
    first, path = processes.rank == 0, folder / CHECKPOINT
    check_loggers(module.settings.logger)
    checkpoint = open_run(described, folder, resume, first)
    callbacks: list[Callback] = [recorder]
    if processes.world_size > 1:
        begun = checkpoint["global_step"] if checkpoint else 0
        callbacks.append(OneOfSeveral(f"{json.dumps(described)} from step {begun}"))
    if progress and first:
        callbacks.append((ProgressBar if sys.stderr.isatty() else ProgressLines)(module.settings.steps))
    finished = checkpoint is not None and recorder.is_finished(checkpoint)
    with nullcontext() if finished else join(processes, path, find_device(device)):
        if finished:
            assert checkpoint is not None
            module.load_state_dict(checkpoint["state_dict"])
            recorder.load_state_dict(checkpoint["callbacks"][recorder.state_key])
        else:
            if first and begin:
                begin()
            fit(module, folder, described, checkpoint, callbacks, processes, device)
        recorder.conclude(module.eval())
        if first:
            write_model(save, folder)


def fit(
    module: Training,
    folder: Path,
    described: dict[str, Any],
    checkpoint: dict[str, Any] | None,
    callbacks: list[Callback],
    processes: Processes,
    device: Device,
) -> None:
    """Run the steps that are left.

    Raises: as `train`.
    """
    first, path = checkpoint["global_step"] if checkpoint else 0, folder / CHECKPOINT
    place, several = find_device(device), processes.world_size > 1
    if several and place.index is not None:
        raise ConfigError(f"device is {device}, but there are {processes.world_size} processes; leave out its number")
    interrupt = signal.getsignal(signal.SIGINT)
    with quiet_lightning():
        trainer = L.Trainer(
            max_steps=module.settings.steps,
            precision=resolve_precision(module.settings.precision, place),
            logger=start_loggers(module.settings.logger, folder, first, processes.rank == 0),
            callbacks=callbacks,
            plugins=[WholeCheckpoints(described), environment(processes)],
            accelerator=place.type,
            strategy="ddp" if several else "auto",
            devices=processes.devices if place.index is None or place.type == "cpu" else [place.index],
            num_nodes=processes.num_nodes,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            log_every_n_steps=20,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, ckpt_path=path if checkpoint else None, weights_only=True)
        # Lightning makes a SystemExit of Ctrl-C, after turning the signal off.
        except (SystemExit, KeyboardInterrupt) as stop:
            signal.signal(signal.SIGINT, interrupt)
            advice = (
                "add --resume to continue from the last checkpoint"
                if path.exists()
                else "no checkpoint was written yet"
            )
            raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}; {advice}") from stop
        except OSError as error:
            raise TrainingError(f"the run in {folder} had to stop ({error})") from error


def seed_everything(seed: int) -> None:
    """Let everything that is drawn from here on follow from the seed.

    Raises:
        ConfigError: it is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; it must lie between 0 and {2**32 - 1}")
    L.seed_everything(seed, verbose=False)


def resolve_precision(precision: str, device: Device = "auto") -> Any:
    """`auto` to bf16-mixed where the device multiplies bfloat16 natively, else to 32-true; others as they are."""
    if precision != "auto":
        return precision
    kind = find_device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "mps":
        native = False
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's hints while inside, which are about its own options, and the last words of threads."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    show = threading.excepthook
    # What stops TensorBoard's thread, its next call raises here.
    threading.excepthook = lambda stop: None if isinstance(stop.exc_value, OSError) else show(stop)
    with warnings.catch_warnings():
        for text in QUIET:
            warnings.filterwarnings("ignore", message=f".*{text}")
        try:
            yield
        finally:
            threading.excepthook = show
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
