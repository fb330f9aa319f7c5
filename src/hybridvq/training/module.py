"""One step of a tokenizer's training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import compress
from typing import Any, Generic, TypeVar, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from hybridvq.data import BatchLoader, Images, Stream, StreamLoader, TrainBatches
from hybridvq.data.batches import own_part
from hybridvq.distributed import average
from hybridvq.errors import ConfigError, ModelError, TrainingError
from hybridvq.losses import BITS, TotalLoss, build_loss
from hybridvq.networks.published import BatchNorm2d
from hybridvq.quantizers import Codebook, Tokens
from hybridvq.settings import Schedule, TrainingSettings
from hybridvq.tokenizer import Tokenizer

M = TypeVar("M", bound=nn.Module)

ZOOM_STREAM = 2  # of the numbers that follow from the seed; those of the order and of the crops are 0 and 1


class Training(L.LightningModule, ABC, Generic[M]):
    """What a run trains, by a schedule.

    Attributes:
        averaged: the average of its weights over the steps, if the schedule asks for one.
    """

    settings: Schedule
    averaged: AveragedModel | None

    @property
    @abstractmethod
    def learned(self) -> M:
        """What learns."""

    @property
    def best(self) -> M:
        """What is measured and kept: what learns, or the average of its weights over the steps."""
        return self.learned if self.averaged is None else cast(M, self.averaged.module)

    @abstractmethod
    def progress_text(self) -> str:
        """The loss of the last batch, for a progress bar."""

    def schedule(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer with the schedule's learning rate, as Lightning wants them."""
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.settings.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TokenizerTraining(Training[Tokenizer]):
    """Minimize the loss plus the quantizer's losses with Adam.

    Args:
        loss: in place of the one that the settings name.
    """

    settings: TrainingSettings

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: TrainingSettings,
        images: Images | Stream,
        seed: int,
        loss: TotalLoss | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.settings, self.images, self.seed = tokenizer, settings, images, seed
        self.loss = build_loss(settings.loss) if loss is None else loss
        self.loss.check(tokenizer.quantizer)
        if settings.shrink > 1 and isinstance(images, Stream):
            raise ConfigError(
                f"training.shrink is {settings.shrink}, but images of a stream have the size of a crop; set it to 1"
            )
        self.averaged = average_of(tokenizer, settings.average) if settings.average else None
        self.stream_loader: StreamLoader | None = None
        self.stream_positions: list[list[tuple[int, int]]] | None = None
        self.loss_optimizer: torch.optim.Optimizer | None = None
        self.loss_state: dict[str, Any] | None = None
        self.last_mse = self.last_quantization = 0.0
        self.last_tokens = Tokens()

    @property
    def learned(self) -> Tokenizer:
        return self.tokenizer

    def on_train_start(self) -> None:
        """Make the optimizer of what the loss learns, now that its weights are where they stay."""
        self.loss_optimizer = self.loss.optimizer(self.settings.learning_rate)
        if self.loss_optimizer and self.loss_state:
            self.loss_optimizer.load_state_dict(self.loss_state)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        self.settle_norm(self.settings.norm_share(self.global_step))

    def on_train_end(self) -> None:
        """Leave a tokenizer that learns from its batches, should somebody train it on."""
        self.settle_norm(0.0)

    def settle_norm(self, share: float) -> None:
        """Let batch normalization use so much of its running averages; where it is all, they stay as they are."""
        for module in self.tokenizer.modules():
            if isinstance(module, BatchNorm2d):
                module.settled = share
            if isinstance(module, nn.BatchNorm2d) and share == 1:
                module.eval()

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        if self.settings.zoom > 1:
            draws = zoom_draws(self.seed, self.global_step, self.settings.batch_size)
            own = own_part(self.settings.batch_size, self.trainer.global_rank, self.trainer.world_size)
            x = enlarge(x, self.settings.zoom, draws[own].to(x))
        x = x.contiguous(memory_format=torch.channels_last)
        result = self.tokenizer(x)
        x_hat = result.x_hat.float()
        if self.loss_optimizer:
            rate = self.settings.learning_rate * self.settings.learning_rate_factor(self.global_step)
            self.loss.learn(x_hat, x, self.loss_optimizer, rate)
        errors, losses = self.loss(x_hat, x, result.quantized.rate), result.quantized.losses
        names, terms = [*errors, *losses], torch.stack([*errors.values(), *losses.values()])
        bits = [name not in errors or name in BITS for name in names]
        # Of the batch of all processes.
        error, *shared = average(torch.cat([F.mse_loss(x_hat, x).detach()[None], terms.detach()])).tolist()
        self.last_mse, self.last_tokens = error, result.quantized.tokens
        self.last_quantization = sum(compress(shared, bits))
        if not math.isfinite(sum(shared)):
            bad = [name for name, value in zip(names, shared, strict=True) if not math.isfinite(value)]
            raise TrainingError(
                f"the loss is not finite at step {self.global_step + 1} (its term {', '.join(bad) or 'sum'}); "
                f"{advice(self.settings)}"
            )
        self.log_dict({f"train/{name}": value for name, value in zip([*names, "mse"], [*shared, error], strict=True)})
        return terms.sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the moments of codes that were replaced in this step: they belong to other vectors."""
        for module in self.tokenizer.modules():
            if isinstance(module, Codebook) and module.restarted is not None:
                for value in optimizer.state.get(module.weight, {}).values():
                    if value.shape == module.weight.shape:
                        value[module.restarted] = 0

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip the gradient of the networks and that of the quantizer, each by its own norm."""
        if self.settings.clip:
            networks = [*self.tokenizer.encoder.parameters(), *self.tokenizer.decoder.parameters()]
            for part in (networks, self.tokenizer.quantizer.parameters()):
                nn.utils.clip_grad_norm_(part, self.settings.clip)

    def configure_optimizers(self) -> Any:
        return self.schedule(torch.optim.Adam(self.tokenizer.parameters(), lr=self.settings.learning_rate, fused=True))

    def progress_text(self) -> str:
        return f"training MSE {self.last_mse:.4f}"

    def train_dataloader(self) -> Iterable[Tensor]:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        size, steps, first = self.settings.batch_size, self.settings.steps, self.global_step
        if isinstance(self.images, Stream):
            stood = self.stream_positions[rank] if self.stream_positions else None
            self.stream_loader = StreamLoader(self.images, size, steps, self.seed, rank, world_size, first, stood)
            return self.stream_loader
        batches = TrainBatches(self.images, size, steps, self.seed, rank, world_size, self.settings.shrink)
        return BatchLoader(batches, first, self.images.workers)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the readers of a stream stand, a list of (epoch, examples read) for each process, and the state of
        the loss's optimizer.
        """
        if self.loss_optimizer:
            checkpoint["loss_optimizer"] = self.loss_optimizer.state_dict()
        if self.stream_loader is not None:
            positions: list[Any] = [self.stream_loader.positions] * self.trainer.world_size
            if len(positions) > 1:
                torch.distributed.all_gather_object(positions, self.stream_loader.positions)
            checkpoint["stream"] = positions

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where they stood.

        Raises:
            ModelError: the run was made by another number of processes.
        """
        self.stream_positions, self.loss_state = checkpoint.get("stream"), checkpoint.get("loss_optimizer")
        if self.stream_positions and len(self.stream_positions) != self.trainer.world_size:
            raise ModelError(
                f"the run reads its stream in {len(self.stream_positions)} processes, not {self.trainer.world_size}; "
                "resume it on as many devices, or train again into another folder"
            )


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model whose weights follow it: by their mean at first, then with this decay."""

    def follow(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        return averaged.lerp(current, max(1 - decay, 9 / (10 + int(count))))

    return AveragedModel(model, avg_fn=follow).requires_grad_(False)


def zoom_draws(seed: int, step: int, batch_size: int) -> Tensor:
    """The numbers in [0, 1) that enlarge the images of a step: (batch_size, 3) for factor, left, top."""
    return torch.from_numpy(np.random.default_rng((seed, ZOOM_STREAM, step)).random((batch_size, 3)))


def enlarge(x: Tensor, zoom: float, draws: Tensor) -> Tensor:
    """Enlarge each of x (B, 3, H, W) in [-1, 1] by a factor from 1 to `zoom`, and cut its size out of it.

    Args:
        zoom: the largest factor; its logarithm is uniform.
        draws: (B, 3) in [0, 1), for the factor and for where to cut, left and top.
    """
    side = zoom ** -draws[:, :1]  # of what is kept, over that of the image
    center = (1 - side) * (2 * draws[:, 1:] - 1)
    affine = torch.cat([torch.eye(2).to(x) * side[..., None], center[..., None]], 2)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, "bicubic", "reflection", align_corners=False).clamp(-1, 1)


def advice(settings: Schedule) -> str:
    """What to do about a run that diverges."""
    return (
        f"lower training.learning_rate, now {settings.learning_rate:g}, or set training.precision to 32-true, "
        "and train again into another folder"
    )
