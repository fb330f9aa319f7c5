"""One step of a tokenizer's training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from hybridvq.data import Images, Stream, StreamLoader, TrainBatches
from hybridvq.distributed import average
from hybridvq.errors import ModelError, TrainingError
from hybridvq.quantizers import Codebook, Tokens
from hybridvq.settings import Schedule, TrainingSettings
from hybridvq.tokenizer import Tokenizer


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


class Training(L.LightningModule, ABC):
    """What a run trains, by a schedule."""

    settings: Schedule

    @abstractmethod
    def progress_text(self) -> str:
        """The loss of the last batch, for a progress bar."""

    def schedule(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer with the schedule's learning rate, as Lightning wants them."""
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.settings.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TokenizerTraining(Training):
    """Minimises mean squared error plus the quantizer's losses with Adam."""

    settings: TrainingSettings

    def __init__(self, tokenizer: Tokenizer, settings: TrainingSettings, images: Images | Stream, seed: int) -> None:
        super().__init__()
        self.tokenizer, self.settings, self.images, self.seed = tokenizer, settings, images, seed
        self.stream_loader: StreamLoader | None = None
        self.stream_positions: list[list[tuple[int, int]]] | None = None
        self.last_mse = self.last_quantization = 0.0
        self.last_tokens = Tokens()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        if self.settings.norm_is_frozen(self.global_step):
            for module in self.tokenizer.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def training_step(self, x: Tensor, batch_idx: int) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        result = self.tokenizer(x)
        terms = {"reconstruction": F.mse_loss(result.x_hat.float(), x)} | result.quantized.losses
        loss = torch.stack(list(terms.values())).sum()
        shared = average(torch.stack([value.detach() for value in terms.values()]))  # of the batch of all processes
        self.last_mse = float(shared[0])
        self.last_quantization = float(shared.sum()) - self.last_mse
        self.last_tokens = result.quantized.tokens
        if not math.isfinite(self.last_quantization):
            bad = [name for name, value in zip(terms, shared, strict=True) if not torch.isfinite(value)]
            raise TrainingError(
                f"the loss is not finite at step {self.global_step + 1} (its term {', '.join(bad) or 'sum'}); "
                f"{advice(self.settings)}"
            )
        self.log_dict({f"train/{name}": value for name, value in zip(terms, shared, strict=True)})
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the moments of codes that were replaced in this step: they belong to other vectors."""
        for module in self.tokenizer.modules():
            if isinstance(module, Codebook) and module.restarted is not None:
                for value in optimizer.state.get(module.weight, {}).values():
                    if value.shape == module.weight.shape:
                        value[module.restarted] = 0

    def configure_optimizers(self) -> Any:
        return self.schedule(torch.optim.Adam(self.parameters(), lr=self.settings.learning_rate, fused=True))

    def progress_text(self) -> str:
        return f"training MSE {self.last_mse:.4f}"

    def train_dataloader(self) -> Iterable[Tensor]:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        size, steps, first = self.settings.batch_size, self.settings.steps, self.global_step
        if isinstance(self.images, Stream):
            stood = self.stream_positions[rank] if self.stream_positions else None
            self.stream_loader = StreamLoader(self.images, size, steps, self.seed, rank, world_size, first, stood)
            return self.stream_loader
        batches = TrainBatches(self.images, size, steps, self.seed, rank, world_size)
        return DataLoader(batches, batch_size=None, sampler=StepSampler(batches, first))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the readers of a stream stand: a list of (epoch, examples read) for each process."""
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
        self.stream_positions = checkpoint.get("stream")
        if self.stream_positions and len(self.stream_positions) != self.trainer.world_size:
            raise ModelError(
                f"the run reads its stream in {len(self.stream_positions)} processes, not {self.trainer.world_size}; "
                "resume it on as many devices, or train again into another folder"
            )


def advice(settings: Schedule) -> str:
    """What to do about a run that diverges."""
    return (
        f"lower training.learning_rate, now {settings.learning_rate:g}, or set training.precision to 32-true, "
        "and train again into another folder"
    )
