"""Where a run's numbers and pictures go: Lightning's loggers, by name."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.extras import EXTRA_OF, lacking

PROJECT = "hybridvq"  # of Weights & Biases, and the experiment of MLflow
TRACKING = os.environ.get("MLFLOW_TRACKING_URI")  # read once, since a run makes MLflow set it for those after it


def tensorboard(folder: Path, first: int) -> Logger:
    # Of steps that a killed run logged after its last checkpoint, TensorBoard shows those of the second time.
    return TensorBoardLogger(folder, name="", version="tensorboard", purge_step=first)


def csv(folder: Path, first: int) -> Logger:
    """A resumed run writes a file of its own, as Lightning deletes what it finds."""
    return CSVLogger(folder, name="", version=f"csv-from-{first}" if first else "csv")


class Wandb(WandbLogger):
    """Ends its run with the training, so that the next one of this process does not continue it."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.experiment.finish(0 if status == "success" else 1)


def wandb(folder: Path, first: int) -> Logger:
    """A resumed run is a new one of the same group."""
    return Wandb(name=folder.name, save_dir=folder, project=PROJECT, group=folder.name)


def mlflow(folder: Path, first: int) -> Logger:
    """As MLFLOW_TRACKING_URI says, or a database in the folder."""
    artifacts = None if TRACKING else str(folder.resolve() / "mlruns")
    place = TRACKING or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    return MLFlowLogger(PROJECT, folder.name, place, artifact_location=artifacts)


LOGGERS: dict[str, Callable[[Path, int], Logger]] = {
    "tensorboard": tensorboard,
    "csv": csv,
    "wandb": wandb,
    "mlflow": mlflow,
}
"""What makes each logger, of the folder of a run and the step it continues from."""


def check_loggers(names: str | Sequence[str]) -> list[str]:
    """The names of loggers that `training.logger` gives.

    Raises:
        ConfigError: there is no such logger.
        MissingExtraError: its package is not installed.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in LOGGERS:
            near = did_you_mean(name, LOGGERS)
            raise ConfigError(f"training.logger is {name!r}{near}; use {', '.join(LOGGERS)}, or a list of them")
        if name in EXTRA_OF and find_spec(name) is None:
            raise lacking(name)
    return chosen


def start_loggers(names: str | Sequence[str], folder: Path, first: int, writes: bool) -> list[Logger]:
    """The loggers of those names for the run of `folder` from step `first` on, ready in the process that `writes`.

    Raises:
        ConfigError: one cannot be started, or as `check_loggers`.
    """
    loggers = []
    for name in check_loggers(names):
        try:
            loggers.append(LOGGERS[name](folder, first))
            if writes:
                getattr(loggers[-1], "experiment", None)  # which is made when it is first asked for
        except Exception as error:  # their packages raise their own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ConfigError(f"the logger {name} cannot be started ({reason}); see to it, or use another") from error
    return loggers


def log_numbers(loggers: Sequence[Logger], values: dict[str, float], step: int) -> None:
    for logger in loggers:
        logger.log_metrics(values, step=step)


def log_images(loggers: Sequence[Logger], name: str, x: Tensor, x_hat: Tensor, step: int) -> None:
    """Show images x (B, 3, H, W) in [-1, 1] above x_hat, where a logger shows images."""
    rows = [torch.cat(list(images.float().clamp(-1, 1)), 2) for images in (x.cpu(), x_hat.cpu())]
    picture = ((torch.cat(rows, 1) + 1) * 127.5).round().byte()  # (3, 2 H, B W)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step)
        elif hasattr(logger, "log_image"):
            logger.log_image(name, [picture.permute(1, 2, 0).numpy()], step=step)
