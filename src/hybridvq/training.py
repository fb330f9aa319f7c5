"""Train a tokenizer: the only file that knows Lightning."""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from hybridvq.data import EvalBatches, Images, TrainBatches
from hybridvq.errors import ModelError, TrainingError
from hybridvq.evaluation import Measurement
from hybridvq.quantizers import Codebook
from hybridvq.settings import Recipe
from hybridvq.tokenizer import Tokenizer

FINITE_CHECK_EVERY = 10
CHECKPOINT = Path("checkpoints") / "last.ckpt"


class StepSampler(Sampler[int]):
    """The steps from `first` to the last, for a dataset whose items are whole batches.

    Its length is that of the whole run, because Lightning counts the steps before a resume as done.
    """

    def __init__(self, batches: Sized, first: int) -> None:
        self.batches, self.first = batches, first

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, len(self.batches)))


class History(Callback):
    """Every step's losses and every test measurement, kept in checkpoints so that a resumed run has them all."""

    def __init__(self) -> None:
        self.train_mse: list[float] = []
        self.train_quantization: list[float] = []
        self.tests: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._batch_end: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        del self.train_mse[trainer.global_step :], self.train_quantization[trainer.global_step :]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, TokenizerTraining)
        self.train_mse.append(pl_module.last_mse)
        self.train_quantization.append(pl_module.last_quantization)
        now = time.perf_counter()
        if self._batch_end is not None:
            self.seconds += now - self._batch_end
        self._batch_end = now

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch_end = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {
            "train_mse": list(self.train_mse),
            "train_quantization": list(self.train_quantization),
            "tests": list(self.tests),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)

    def images_per_second(self, batch_size: int) -> float:
        """Training speed, without the time spent measuring."""
        return (len(self.train_mse) - 1) * batch_size / self.seconds if self.seconds else 0.0


class TokenizerTraining(L.LightningModule):
    """Minimises mean squared error plus the quantizer's losses with Adam."""

    def __init__(
        self, tokenizer: Tokenizer, recipe: Recipe, history: History, train: Images, test: EvalBatches, seed: int
    ):
        super().__init__()
        self.tokenizer, self.recipe, self.history, self.seed = tokenizer, recipe, history, seed
        self.train_images, self.test_batches = train, test
        self.last_mse = self.last_quantization = 0.0
        self.measurement: Measurement | None = None

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        result = self.tokenizer(x)
        terms = {"reconstruction": F.mse_loss(result.x_hat.float(), x)} | result.quantized.losses
        loss = torch.stack(list(terms.values())).sum()
        self.last_mse = float(terms["reconstruction"].detach())
        self.last_quantization = float(loss.detach()) - self.last_mse
        if not torch.isfinite(loss):
            self._stop(terms, x)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        self.log("mse", terms["reconstruction"].detach(), prog_bar=True, logger=False)
        return loss

    def _stop(self, terms: dict[str, Tensor], x: Tensor) -> None:
        bad = [name for name, value in terms.items() if not torch.isfinite(value)]
        cause = (
            "the images hold values that are not finite"
            if not torch.isfinite(x).all()
            else f"loss term(s) {', '.join(bad)}"
        )
        raise TrainingError(
            f"the loss is not finite at step {self.global_step} ({cause}); lower training.learning_rate, now "
            f"{self.recipe.training.learning_rate:g}, or set training.precision to 32-true, and resume"
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the moments of codes that were replaced in this step: they belong to other vectors."""
        for module in self.tokenizer.modules():
            if isinstance(module, Codebook) and module.restarted is not None:
                for value in optimizer.state.get(module.weight, {}).values():
                    if value.shape == module.weight.shape:
                        value[module.restarted] = 0

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.recipe.training.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.recipe.training.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Tensor]:
        settings = self.recipe.training
        batches = TrainBatches(
            self.train_images,
            settings.batch_size,
            settings.steps,
            self.seed,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        return DataLoader(batches, batch_size=None, sampler=StepSampler(batches, self.global_step))

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.test_batches, batch_size=None)

    def on_validation_epoch_start(self) -> None:
        self.measurement = Measurement(self.tokenizer)

    def validation_step(self, x: Tensor, batch_idx: int) -> None:
        assert self.measurement is not None
        self.measurement.add(x)

    def on_validation_epoch_end(self) -> None:
        assert self.measurement is not None
        result = self.measurement.result()
        self.history.tests.append(
            {"step": self.global_step} | {k: result[k] for k in ("test_mse", "test_quantization_loss", "codes_used")}
        )
        self.log_dict({"test/mse": result["test_mse"], "test/codes_used": float(result["codes_used"] or 0)})


def train(
    recipe: Recipe,
    train_images: Images,
    test_batches: EvalBatches,
    folder: Path,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> tuple[Tokenizer, History]:
    """Train `recipe` on `train_images`, measuring `test_batches` on the way.

    Writes into `folder`: recipe.json, checkpoints/last.ckpt, tensorboard/ and, at the end, model/ (safetensors).
    With `resume`, continues from the checkpoint there, to the very weights an uninterrupted run would have.

    Raises:
        TrainingError: a loss is not finite, or the disk cannot be written.
        ModelError: `resume` finds a checkpoint of another recipe, or one that cannot be read.
    """
    checkpoint = prepare_folder(recipe, seed, folder, resume)
    L.seed_everything(seed, verbose=False)
    tokenizer = Tokenizer(**asdict(recipe.model))
    tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    history = History()
    module = TokenizerTraining(tokenizer, recipe, history, train_images, test_batches, seed)
    trainer = build_trainer(recipe, folder, history, progress)
    try:
        trainer.fit(module, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
    except OSError as error:
        raise TrainingError(
            f"writing to {folder} failed ({error.strerror or error}); the last checkpoint there is whole"
        ) from error
    if trainer.interrupted:
        raise TrainingError(
            f"interrupted at step {trainer.global_step}; add --resume to go on from the last checkpoint"
        )
    tokenizer.eval().save_pretrained(folder / "model")
    return tokenizer, history


def build_trainer(recipe: Recipe, folder: Path, history: History, progress: bool) -> L.Trainer:
    settings = recipe.training
    quiet_lightning()
    checkpoints = ModelCheckpoint(
        dirpath=folder / CHECKPOINT.parent,
        filename=CHECKPOINT.stem,
        every_n_train_steps=settings.checkpoint_every,
        enable_version_counter=False,
    )
    return L.Trainer(
        max_steps=settings.steps,
        precision=resolve_precision(settings.precision),
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        callbacks=[history, checkpoints, *([RichProgressBar()] if progress else [])],
        enable_progress_bar=progress,
        enable_model_summary=False,
        val_check_interval=min(settings.eval_every, settings.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
        use_distributed_sampler=False,
    )


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


def prepare_folder(recipe: Recipe, seed: int, folder: Path, resume: bool) -> Path | None:
    """Write recipe.json, and return the checkpoint to resume from, if there is one and it is asked for."""
    state = {"model": asdict(recipe.model), "training": asdict(recipe.training), "seed": seed}
    written, checkpoint = folder / "recipe.json", folder / CHECKPOINT
    if resume and written.is_file() and checkpoint.is_file():
        if json.loads(written.read_text()) != state:
            raise ModelError(
                f"{folder} was begun with another recipe or seed (see {written.name}); use the same, or another folder"
            )
        try:
            torch.load(checkpoint, map_location="meta", weights_only=True)
        except Exception as error:
            raise ModelError(
                f"{checkpoint} cannot be read ({type(error).__name__}); delete it to start again"
            ) from error
        return checkpoint
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(state, indent=2) + "\n")
        checkpoint.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    return None


def quiet_lightning() -> None:
    """Lightning's hints are about its own options, which a user of this project does not set."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for text in ("does not have many workers", "Checkpoint directory", "`isinstance\\(treespec, LeafSpec\\)`"):
        warnings.filterwarnings("ignore", message=f".*{text}.*")
