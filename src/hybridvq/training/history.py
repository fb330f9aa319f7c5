"""The history of a run: losses, measurements, speed, warnings."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class History:
    """Losses, measurements and warnings of a run; part of every checkpoint, so that a resumed run has all of them.

    Attributes:
        train_mse: mean squared error of each step's batch.
        train_quantization: sum of the quantizer's losses of each step.
        tests: step, test_mse, test_quantization_loss and codes_used of each measurement.
        seconds: time spent on `timed_steps` steps, without measurements and checkpoints.
        warnings: what the watch found, in plain words.
        timed_steps: all steps but the first after each start, which warms up.
    """

    train_mse: list[float] = field(default_factory=list)
    train_quantization: list[float] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    timed_steps: int = 0
    warnings: list[str] = field(default_factory=list)

    def images_per_second(self, batch_size: int) -> float:
        """Training speed; 0 if no step was timed."""
        return self.timed_steps * batch_size / self.seconds if self.seconds else 0.0


@dataclass
class PriorHistory:
    """Losses and measurements of a prior's run; part of every checkpoint.

    Attributes:
        train_bits: bits per position of each step's batch.
        tests: step, bits, code_bits and gain_bits per position of each measurement on held-out tokens.
        seconds, timed_steps: as in `History`.
        best_step: the measurement with the fewest bits.
        best: the weights at that step.
        stopped: whether the run ended before its last step because measurements stopped improving.
        reported: images, bits, code_bits and gain_bits of the weights kept on held-out tokens that did not choose them;
            empty where there are none.
    """

    train_bits: list[float] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    timed_steps: int = 0
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False
    reported: dict[str, float] = field(default_factory=dict)
