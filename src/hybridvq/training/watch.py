"""Notice, in plain words, the ways in which a run with a codebook goes wrong."""

from collections import deque
from statistics import median

from torch import Tensor

from hybridvq.distributed import all_gather
from hybridvq.metrics import SPIKE_START, SPIKE_WINDOW
from hybridvq.quantizers import Tokens

CHECK_EVERY = 100  # steps between two looks at codes and gains, which cost a synchronisation on a GPU
COLLAPSED = 0.1  # share of the codes that a batch could use
RUNAWAY = 10.0  # the largest coefficient over the median one
SPIKE = 3.0  # a batch's loss over the median of those before it; small batches of varied photographs reach 2
REPEAT_AFTER = 1000  # steps before the same thing is said again


class Watch:
    """Looks at every training step and says what is wrong, at most once in 1,000 steps for each kind.

    - collapse: a batch uses less than a tenth of the codes it could use, which of codes trained `as_published` is
      expected;
    - runaway gain: the largest coefficient of a batch exceeds ten times the median one;
    - spike: a batch's reconstruction loss exceeds three times the median of the 100 before it, from step 200 on.

    Of several processes each looks at the batch of all and finds the same.
    """

    def __init__(self, codebook_size: int | None, as_published: bool = False) -> None:
        self.codebook_size, self.as_published = codebook_size, as_published
        self._recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._said: dict[str, int] = {}

    def look(self, step: int, mse: float, tokens: Tokens, last: bool = False) -> list[str]:
        """What is wrong after `step` (from 1, perhaps the `last`), whose batch had this loss and these tokens."""
        found = {"spike": self._spike(step, mse)}
        if last or (step % CHECK_EVERY == 0 and step >= SPIKE_START):
            tokens = of_all(tokens)
            found |= {"collapse": self._collapse(tokens.codes), "gain": self._runaway(tokens)}
        self._recent.append(mse)
        return [f"step {step:,}: {text}" for kind, text in found.items() if text and self._new(kind, step)]

    def _new(self, kind: str, step: int) -> bool:
        if step - self._said.get(kind, -REPEAT_AFTER) < REPEAT_AFTER:
            return False
        self._said[kind] = step
        return True

    def _spike(self, step: int, mse: float) -> str:
        if step <= SPIKE_START or len(self._recent) < SPIKE_WINDOW:
            return ""
        usual = median(self._recent)
        if mse <= SPIKE * usual:
            return ""
        return (
            f"loss spike: the batch's loss, {mse:.4f}, is {mse / usual:.1f} times the median of the {SPIKE_WINDOW} "
            "before it; lower training.learning_rate, or lengthen training.warmup"
        )

    def _collapse(self, codes: Tensor | None) -> str:
        if codes is None or not self.codebook_size:
            return ""
        used, possible = len(codes.unique()), min(self.codebook_size, codes.numel())
        if used >= COLLAPSED * possible:
            return ""
        if self.as_published:
            return f"codebook collapse, expected of codes trained as published: {used} of {self.codebook_size} in use"
        return (
            f"codebook collapse: the batch uses {used} of {self.codebook_size} codes; start the codes from data "
            "(model.options.init kmeans) and restart dead ones (model.options.restart_every 50), or, where that is so "
            "already, lower training.learning_rate"
        )

    def _runaway(self, tokens: Tokens) -> str:
        if tokens.gains is None or not tokens.gains.is_floating_point():
            return ""
        gains = tokens.gains if tokens.passed is None else tokens.gains[tokens.passed]
        if not gains.numel():
            return ""
        usual, largest = float(gains.abs().median()), float(gains.abs().max())
        if largest <= RUNAWAY * usual:
            return ""
        return (
            f"runaway gain: the largest coefficient, {largest:.3g}, is {largest / max(usual, 1e-9):.0f} times the "
            "median one, so some codes are much shorter than their vectors; use the gain-shape quantizer, or start the "
            "codes from data (model.options.init kmeans)"
        )


def of_all(tokens: Tokens) -> Tokens:
    """What the watch reads of the tokens, of all processes."""
    codes, gains, passed = (x if x is None else all_gather(x) for x in (tokens.codes, tokens.gains, tokens.passed))
    return Tokens(codes=codes, gains=gains, passed=passed)
