"""What happens between the steps of a run: measurements, checkpoints, the progress bar."""

import io
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hybridvq.data import EvalBatches
from hybridvq.errors import TrainingError
from hybridvq.evaluation import evaluate
from hybridvq.settings import TrainingSettings
from hybridvq.tokenizer import Tokenizer
from hybridvq.training.history import History
from hybridvq.training.module import TokenizerTraining, advice
from hybridvq.training.watch import Watch
from hybridvq.writing import write_whole

TEST_KEYS = ("test_mse", "test_quantization_loss", "codes_used")


class Recorder(Callback):
    """After each step: its losses, then the test measurement and the checkpoint if they are due."""

    def __init__(
        self,
        settings: TrainingSettings,
        history: History,
        test_batches: EvalBatches,
        checkpoint: Path,
        watch: Watch | None = None,
        stop: bool = False,
        title: str = "",
    ) -> None:
        self.settings, self.history = settings, history
        self.test_batches, self.checkpoint = test_batches, checkpoint
        self.watch, self.stop, self.title = watch, stop, title
        self._started: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, TokenizerTraining)
        history, step = self.history, trainer.global_step
        if self._started is not None:
            history.seconds += time.perf_counter() - self._started
            history.timed_steps += 1
        history.train_mse.append(pl_module.last_mse)
        history.train_quantization.append(pl_module.last_quantization)
        if self.watch:
            found = self.watch.look(step, pl_module.last_mse, pl_module.last_tokens, step == self.settings.steps)
            self._report(found, trainer.is_global_zero)
        if self._due(step, self.settings.eval_every):
            self._measure(trainer, pl_module.tokenizer)
        if self._due(step, self.settings.checkpoint_every):
            self._save(trainer, pl_module.tokenizer)
        self._started = time.perf_counter()

    def _report(self, found: list[str], first: bool) -> None:
        for text in found:
            self.history.warnings.append(text)
            if self.stop:
                raise TrainingError(f"stopped at {text}; --watch warn goes on")
            if first:
                print(f"{self.title}: warning: {text}", file=sys.stderr)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.settings.steps

    def _measure(self, trainer: L.Trainer, tokenizer: Tokenizer) -> None:
        """The first process measures; the others wait for the result."""
        result = evaluate(tokenizer, self.test_batches) if trainer.is_global_zero else None
        result = trainer.strategy.broadcast(result)
        assert result is not None
        self.history.tests.append({"step": trainer.global_step} | {key: result[key] for key in TEST_KEYS})
        assert trainer.logger is not None
        shown = {"test/mse": result["test_mse"], "test/codes_used": float(result["codes_used"] or 0)}
        trainer.logger.log_metrics(shown, step=trainer.global_step)

    def _save(self, trainer: L.Trainer, tokenizer: Tokenizer) -> None:
        if not all(value.isfinite().all() for value in tokenizer.state_dict().values()):
            raise TrainingError(f"the weights are not finite after step {trainer.global_step}; {advice(self.settings)}")
        trainer.save_checkpoint(self.checkpoint)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self.history))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self.history).update(state_dict)


class ProgressBar(Callback):
    """Steps done, time left and the batch's error, on a terminal."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.bar = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("left, training MSE {task.fields[mse]}"),
            console=Console(stderr=True),
            transient=True,
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.task = self.bar.add_task("", total=self.steps, completed=trainer.global_step, mse="-")
        self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, TokenizerTraining)
        self.bar.update(self.task, completed=trainer.global_step, mse=f"{pl_module.last_mse:.4f}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are moved into place when they are complete.

    Lightning's own are assembled in the system's temporary folder; moved from there to another file system they are
    copied, and a kill leaves half of one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            write_whole(Path(path), content.getbuffer())
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be written ({error.strerror or error}); make room there and resume from the checkpoint "
                "before, if there is one"
            ) from error
