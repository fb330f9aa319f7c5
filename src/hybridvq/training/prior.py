"""Train a prior on tokens."""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from hybridvq.bulk import TokenSet, load_tokens, tokenize
from hybridvq.data import BatchLoader, Images, Split
from hybridvq.devices import Device, find_device
from hybridvq.distributed import average
from hybridvq.errors import TrainingError
from hybridvq.launch import find_processes
from hybridvq.priors import Prior, StaticPrior, bits_per_position, build_prior, decay_groups, save_with_tokenizer
from hybridvq.saved import CHECKPOINT, model_folder
from hybridvq.settings import PriorSettings, PriorTrainingSettings, changed
from hybridvq.tokenizer import load_tokenizer
from hybridvq.training.callbacks import Recorder
from hybridvq.training.engine import run, seed_everything
from hybridvq.training.folder import open_run, own, write_model
from hybridvq.training.history import PriorHistory
from hybridvq.training.loggers import log_numbers
from hybridvq.training.module import Training, advice, average_of
from hybridvq.training.tokens import Batch, TokenArrays, TokenBatches, split

EVAL_BATCH = 64
PARTS: dict[str, tuple[Split, bool]] = {"train": ("train", False), "test": ("test", False), "mirrored": ("train", True)}
"""The folders of tokens: of which split, and whether its images are mirrored."""

_DROPOUT = 2  # keeps these random numbers apart from others of the same seed, see `hybridvq.data.batches`


def train_prior(
    model: str | Path,
    data: str | Path = "photos",
    out: str | Path = "runs/prior",
    *,
    prior: str | PriorSettings = "transformer",
    options: dict[str, Any] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    mirror: bool = False,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    eval_images: int = 2048,
    device: Device = "auto",
) -> tuple[Prior, PriorHistory]:
    """Make the tokens of images and fit a prior to them, as `hybridvq train-prior` does.

    Args:
        model: a run, a model folder, a bundled tokenizer or a hub id.
        data: what `hybridvq train --data` takes.
        out: the folder to write, which keeps the tokens too.
        prior: a name of `hybridvq.priors.PRIORS`, or all settings.
        options, steps, batch_size: in place of those of the prior's settings.
        size: side of the crops, in pixels; if None, as the model was trained.
        mirror: learn the mirror image of each image too.
        seed, resume, progress, eval_images, device: as of `fit_prior`.

    Raises:
        ConfigError, ModelError, DataError, TrainingError: as `fit_prior` and `hybridvq.tokenize`.
    """
    settings = prior if isinstance(prior, PriorSettings) else PriorSettings(prior)
    training = changed(settings.training, steps=steps, batch_size=batch_size)
    settings = changed(settings, options=options, training=training)
    train_tokens, test_tokens, *mirrored = make_tokens(model, lambda split: data, Path(out), mirror, size, device)
    return fit_prior(
        settings,
        model,
        train_tokens,
        test_tokens,
        Path(out),
        seed,
        resume,
        progress,
        eval_images,
        device=device,
        mirrored=next(iter(mirrored), None),
    )


def make_tokens(
    model: str | Path,
    images_of: Callable[[Split], Images | str | Path],
    out: Path,
    mirror: bool,
    size: int | None = None,
    device: Device = "auto",
) -> list[TokenSet]:
    """Make what is missing of the tokens in `out`/tokens, and open them: see `open_tokens`.

    Args:
        images_of: the images of a split, or what `hybridvq train --data` takes; asked once for each.

    Raises: as `hybridvq.tokenize`.
    """
    images, folder = cache(images_of), out / "tokens"
    for part in part_names(mirror):
        split, mirrored = PARTS[part]
        found = images(split)
        tokenize(model, found, folder / part, size=size, split=split, mirror=mirrored, codes_alone=True, device=device)
    return open_tokens(folder, mirror)


def open_tokens(folder: Path, mirror: bool) -> list[TokenSet]:
    """The tokens of the training and of the test images, and those of mirrored training images if `mirror`."""
    return [load_tokens(folder / part) for part in part_names(mirror)]


def part_names(mirror: bool) -> list[str]:
    return [part for part, (_, mirrored) in PARTS.items() if mirror or not mirrored]


def fit_prior(
    settings: PriorSettings,
    model: str | Path,
    train_tokens: TokenSet,
    test_tokens: TokenSet,
    folder: Path,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    eval_images: int = 2048,
    devices: int | Literal["auto"] | None = None,
    num_nodes: int | None = None,
    device: Device = "auto",
    mirrored: TokenSet | None = None,
) -> tuple[Prior, PriorHistory]:
    """Train a prior over the tokens of `model`, measuring the first `eval_images` of `test_tokens` on the way.

    With `mirrored`, the tokens of the mirror images of the training set, those are learned too. The other test tokens,
    which have no say in anything, are measured at the end.

    Writes into `folder`: recipe.json, checkpoints/last.ckpt, tensorboard/ and, at the end, model/, which holds the
    prior (safetensors) and the tokenizer. The weights kept are those of the measurement with the fewest bits. Resuming,
    devices and failures are as in `train`; the static prior is fitted in closed form by a single process.

    Raises:
        ConfigError: no such prior or option, labels are asked for and there are none, or as in `train`.
        ModelError: the tokens are another model's, or as in `train`.
        DataError: there are no tokens.
        TrainingError: as in `train`.
    """
    find_device(device)
    source = model_folder(model)
    for tokens in (train_tokens, test_tokens, *([mirrored] if mirrored else [])):
        tokens.check(source)
    seed_everything(seed)
    learned = TokenArrays(train_tokens, settings.conditional)
    if mirrored:
        learned.add(TokenArrays(mirrored, settings.conditional))
    held_out = TokenArrays(test_tokens, settings.conditional, eval_images)
    classes = len(train_tokens.classes or ()) if settings.conditional else None
    space = load_tokenizer(source).quantizer.space().codes_alone
    prior = build_prior(settings.prior, space, train_tokens.manifest.grid, classes, settings.options)
    described = identify(settings, seed, train_tokens) | ({"mirrored": True} if mirrored else {})

    def save(partial: Path) -> None:
        save_with_tokenizer(prior, partial, source, train_tokens.classes if settings.conditional else None)

    history, processes = PriorHistory(), find_processes(devices, num_nodes)
    first = processes.rank == 0
    if isinstance(prior, StaticPrior):
        with own(folder, first):
            open_run(described, folder, resume, first)
            prior.fit(split(batch)[0] for batch in learned.in_order(EVAL_BATCH))
            history.tests.append({"step": 0} | measure(prior, held_out))
            if first:
                write_model(save, folder)
        return prior.eval(), report(prior, history, settings, test_tokens, eval_images)
    gains = learned.batch(slice(None)).get("gains")
    if gains is not None:
        prior.fit_scale(gains)
    module = PriorTraining(prior, settings.training, learned, seed)
    recorder = PriorRecorder(settings.training, history, folder / CHECKPOINT, prior, held_out)
    with own(folder, first):
        run(module, recorder, described, folder, processes, save, resume, progress, device)
    return prior.eval(), report(prior, history, settings, test_tokens, eval_images) if first else history


def report(
    prior: Prior, history: PriorHistory, settings: PriorSettings, test_tokens: TokenSet, seen: int
) -> PriorHistory:
    """The history with a measurement of the test tokens after the first `seen`, which chose the weights."""
    if len(test_tokens) > seen:
        others = TokenArrays(test_tokens, settings.conditional, start=seen)
        history.reported = {"images": len(others)} | measure(prior, others)
    return history


def identify(settings: PriorSettings, seed: int, tokens: TokenSet) -> dict[str, Any]:
    """What a run's weights follow from, as recipe.json has it."""
    manifest = tokens.manifest
    data = {key: manifest.data[key] for key in ("fingerprint", "size")}
    identity = {"seed": seed, "data": data, "tokenizer": manifest.model["sha256"]}
    return asdict(settings) | {"training": settings.training.identity()} | identity


class PriorTraining(Training[Prior]):
    """Minimize the negative log-likelihood of tokens, in nats per position, with AdamW."""

    settings: PriorTrainingSettings

    def __init__(self, prior: Prior, settings: PriorTrainingSettings, tokens: TokenArrays, seed: int) -> None:
        super().__init__()
        self.prior, self.settings, self.tokens, self.seed = prior, settings, tokens, seed
        self.averaged = average_of(prior, settings.average) if settings.average else None
        self.last_bits = 0.0

    @property
    def learned(self) -> Prior:
        return self.prior

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let what dropout leaves out follow from the step, so that a resumed run leaves out the same."""
        entropy = (self.seed, _DROPOUT, self.global_step, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        score = self.prior.score(*split(batch))
        terms = {"code": -score.code.sum(1).mean()}
        if score.gain is not None:
            terms["gain"] = -score.gain.sum(1).mean()
        loss = torch.stack(list(terms.values())).sum()
        shared = average(loss.detach().clone())  # of the batch of all processes
        self.last_bits = float(shared) / math.log(2)
        if not math.isfinite(self.last_bits):
            raise TrainingError(f"the loss is not finite at step {self.global_step + 1}; {advice(self.settings)}")
        self.log("train/bits", self.last_bits)
        return loss

    def configure_optimizers(self) -> Any:
        groups = decay_groups(self.prior, self.settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.95), fused=True)
        return self.schedule(optimizer)

    def train_dataloader(self) -> BatchLoader:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        size, steps = self.settings.batch_size, self.settings.steps
        batches = TokenBatches(self.tokens, size, steps, self.seed, rank, world_size)
        return BatchLoader(batches, self.global_step)

    def progress_text(self) -> str:
        return f"{self.last_bits:.3f} bits per position"


class PriorRecorder(Recorder):
    """Keep the best weights of a prior's run, and end the run when they no longer improve."""

    history: PriorHistory

    def __init__(
        self,
        settings: PriorTrainingSettings,
        history: PriorHistory,
        checkpoint: Path,
        prior: Prior,
        held_out: TokenArrays,
    ) -> None:
        super().__init__(settings, history, checkpoint)
        self.patience, self.prior, self.held_out = settings.patience, prior, held_out

    def record(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PriorTraining)
        self.history.train_bits.append(pl_module.last_bits)

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first process measures; the others wait for the result."""
        assert isinstance(pl_module, PriorTraining)
        history, step = self.history, trainer.global_step
        result = measure(pl_module.best, self.held_out) if trainer.is_global_zero else None
        result = trainer.strategy.broadcast(result)
        assert result is not None
        log_numbers(trainer.loggers, {f"test/{name}": value for name, value in result.items()}, step)
        best = min((test["bits"] for test in history.tests), default=math.inf)
        history.tests.append({"step": step} | result)
        if result["bits"] < best:
            history.best_step = step
            history.best = {name: value.detach().cpu().clone() for name, value in pl_module.best.state_dict().items()}
        since = sum(test["step"] > history.best_step for test in history.tests)
        if self.patience and since >= self.patience:
            history.stopped = trainer.should_stop = True

    def conclude(self, module: L.LightningModule) -> None:
        """Choose the weights of the best measurement."""
        self.prior.load_state_dict(self.history.best)

    def is_finished(self, checkpoint: dict[str, Any]) -> bool:
        return super().is_finished(checkpoint) or bool(checkpoint["callbacks"][self.state_key]["stopped"])


def measure(prior: Prior, tokens: TokenArrays) -> dict[str, float]:
    """Bits per position on held-out tokens: in all, of codes and of gains, which for a float gain is a density."""
    bits = bits_per_position(prior, map(split, tokens.in_order(EVAL_BATCH)))
    return {"bits": bits.total, "code_bits": bits.code, "gain_bits": bits.gain}
