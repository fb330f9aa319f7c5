"""What happens between the steps of a run: measurements, checkpoints, the progress bar."""

import json
import time
from abc import ABC, abstractmethod
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hybridvq.data import EvalBatches
from hybridvq.errors import TrainingError
from hybridvq.evaluation import evaluate, reconstruct
from hybridvq.printing import say
from hybridvq.settings import Schedule
from hybridvq.training.folder import RUN, write_checkpoint
from hybridvq.training.history import History, PriorHistory
from hybridvq.training.loggers import log_images, log_numbers
from hybridvq.training.module import TokenizerTraining, Training, advice
from hybridvq.training.watch import Watch

LINE_SECONDS = 30.0  # between two lines of progress
SHOWN_IMAGES = 4  # held-out ones, beside their reconstructions
TEST_KEYS = ("test_mse", "test_quantization_loss", "codes_used")


class Recorder(Callback, ABC):
    """Record the losses of each step, then measure held-out images and write the checkpoint if they are due.

    The history is its state, and so part of every checkpoint.
    """

    def __init__(self, settings: Schedule, history: History | PriorHistory, checkpoint: Path) -> None:
        self.settings, self.history, self.checkpoint = settings, history, checkpoint
        self._started: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self._started is not None:
            self.history.seconds += time.perf_counter() - self._started
            self.history.timed_steps += 1
        assert isinstance(pl_module, Training)
        if pl_module.averaged is not None:
            pl_module.averaged.update_parameters(pl_module.learned)
        self.record(trainer, pl_module)
        if self._due(step, self.settings.eval_every):
            self.measure(trainer, pl_module)
        if self._due(step, self.settings.checkpoint_every) or trainer.should_stop:
            self._save(trainer, pl_module)
        self._started = time.perf_counter()

    @abstractmethod
    def record(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write down the losses of a step."""

    @abstractmethod
    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write down a measurement of held-out images."""

    def conclude(self, module: L.LightningModule) -> None:
        """Choose the weights that become the model: those of the last step."""

    def is_finished(self, checkpoint: dict[str, Any]) -> bool:
        """Whether nothing is left to train."""
        return bool(checkpoint["global_step"] >= self.settings.steps)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.settings.steps

    def _save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not all(value.isfinite().all() for value in module.state_dict().values()):
            raise TrainingError(f"the weights are not finite after step {trainer.global_step}; {advice(self.settings)}")
        trainer.save_checkpoint(self.checkpoint)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self.history))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self.history).update(state_dict)


class TokenizerRecorder(Recorder):
    """Record a tokenizer's run, and watch over it."""

    history: History

    def __init__(
        self,
        settings: Schedule,
        history: History,
        checkpoint: Path,
        test_batches: EvalBatches,
        watch: Watch | None = None,
        stop: bool = False,
        title: str = "",
    ) -> None:
        super().__init__(settings, history, checkpoint)
        self.test_batches, self.watch, self.stop, self.title = test_batches, watch, stop, title

    def record(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TokenizerTraining)
        step = trainer.global_step
        self.history.train_mse.append(pl_module.last_mse)
        self.history.train_quantization.append(pl_module.last_quantization)
        if self.watch:
            found = self.watch.look(step, pl_module.last_mse, pl_module.last_tokens, step == self.settings.steps)
            self._report(found, trainer.is_global_zero)

    def _report(self, found: list[str], first: bool) -> None:
        for text in found:
            self.history.warnings.append(text)
            if self.stop:
                raise TrainingError(f"stopped at {text}; --watch warn continues")
            if first:
                say(f"{self.title}: warning: {text}", error=True)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first process measures; the others wait for the result."""
        assert isinstance(pl_module, TokenizerTraining)
        result = evaluate(pl_module.best, self.test_batches) if trainer.is_global_zero else None
        result = trainer.strategy.broadcast(result)
        assert result is not None
        self.history.tests.append({"step": trainer.global_step} | {key: result[key] for key in TEST_KEYS})
        shown = {"test/mse": result["test_mse"], "test/codes_used": float(result["codes_used"] or 0)}
        log_numbers(trainer.loggers, shown, trainer.global_step)
        count = len(self.history.tests)
        # More and more seldom, since pictures take room.
        if trainer.is_global_zero and (count.bit_count() == 1 or trainer.global_step == self.settings.steps):
            x = EvalBatches(self.test_batches.images, SHOWN_IMAGES, SHOWN_IMAGES)[0]
            x_hat = reconstruct(pl_module.best, x)[0]
            log_images(trainer.loggers, "test/reconstructions", x, x_hat, trainer.global_step)

    def conclude(self, module: L.LightningModule) -> None:
        assert isinstance(module, TokenizerTraining)
        module.tokenizer.load_state_dict(module.best.state_dict())


class ProgressBar(Callback):
    """Steps done, time left and the batch's loss, on a terminal."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.bar = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("left, {task.fields[loss]}"),
            console=Console(stderr=True),
            transient=True,
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.task = self.bar.add_task("training", total=self.steps, completed=trainer.global_step, loss="")
        self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Training)
        self.bar.update(self.task, completed=trainer.global_step, loss=pl_module.progress_text())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()


class ProgressLines(Callback):
    """The same as a line now and then, where there is no terminal, so that a log shows that the run goes on."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = self.said = time.perf_counter()
        self.first = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Training)
        now, step = time.perf_counter(), trainer.global_step
        if now - self.said >= LINE_SECONDS:
            self.said = now
            left = timedelta(seconds=round((self.steps - step) * (now - self.began) / (step - self.first)))
            say(f"step {step:,} of {self.steps:,}: {left} left, {pl_module.progress_text()}", error=True)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that say which run they are of, and are moved into place when they are complete.

    Lightning's own are assembled in the system's temporary folder; moved from there to another file system they are
    copied, and a kill leaves half of one.
    """

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__()
        self.described = described

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            write_checkpoint(checkpoint | {RUN: json.dumps(self.described)}, Path(path))
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be written ({error.strerror or error}); make room there and resume from the checkpoint "
                "before, if there is one"
            ) from error
