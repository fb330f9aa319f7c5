"""The setting that meets a size or a quality, found by trying."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hybridvq.errors import ConfigError

LOG2_WEIGHTS = (-12.0, 6.0)  # lambda over the mean square of the vectors: nothing gives way, everything does
HALVINGS = 9  # until lambda is known to a fortieth of its value


@dataclass(frozen=True)
class Attempt:
    """An image as one setting compresses it: the file, its bits per pixel, and its PSNR, asked for when needed."""

    data: bytes
    rate_bpp: float
    psnr_db: Callable[[], float]


@dataclass(frozen=True)
class Target:
    """At most so many bits per pixel, or at least so many decibels."""

    value: float
    is_rate: bool

    def of(self, attempt: Attempt) -> float:
        return attempt.rate_bpp if self.is_rate else attempt.psnr_db()

    def is_met(self, attempt: Attempt) -> bool:
        return self.of(attempt) <= self.value if self.is_rate else self.of(attempt) >= self.value

    def best(self, met: list[Attempt]) -> Attempt:
        """The one with the most quality if this is a rate, with the fewest bytes if not; the first of equals."""
        if len(met) == 1:
            return met[0]
        return max(met, key=lambda a: a.psnr_db()) if self.is_rate else min(met, key=lambda a: len(a.data))


def meet(target: Target, attempt: Callable[[int, float], Attempt], stages: int, unit: float) -> Attempt:
    """The best attempt that meets the target: with the most quality if it is a rate, with the fewest bits if not.

    More stages, and a smaller lambda, give more quality for more bits. So the stages are those that first give as much
    of either as the target asks for, and lambda is raised until just that much is left.

    Args:
        target: what to meet.
        attempt: tries a number of stages and a lambda.
        stages: S, the most that can be used.
        unit: the mean square of the vectors that are quantized.

    Raises:
        ConfigError: no setting meets it.
    """
    met: list[Attempt] = []
    for s in range(1, stages + 1):
        nearest = attempt(s, 0.0)
        if target.is_met(nearest):
            met.append(nearest)
        if target.is_met(nearest) != target.is_rate:
            met += raise_weight(target, partial(attempt, s), unit)
            break
    if met:
        return target.best(met)
    ends = sorted(target.of(a) for a in (attempt(1, unit * 2 ** LOG2_WEIGHTS[1]), attempt(stages, 0.0)))
    name, what = ("target_bpp", "bits per pixel") if target.is_rate else ("target_psnr", "dB")
    raise ConfigError(
        f"{name} {target.value:g} is out of reach: of this image the model makes files of {ends[0]:.3g} to "
        f"{ends[1]:.3g} {what}; choose one between"
    )


def raise_weight(target: Target, attempt: Callable[[float], Attempt], unit: float) -> list[Attempt]:
    """The attempt with the lambda that just meets the target, by bisection; none where none does."""
    low, high = LOG2_WEIGHTS
    best: list[Attempt] = []
    if target.is_rate:
        best = [attempt(unit * 2**high)]
        if not target.is_met(best[0]):
            return []
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = attempt(unit * 2**middle)
        if target.is_met(tried):
            best = [tried]
        if target.is_met(tried) == target.is_rate:
            high = middle
        else:
            low = middle
    return best
