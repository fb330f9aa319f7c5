"""How a symbol is chosen from logits: temperature, the top k, the nucleus, guidance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridvq.errors import ConfigError
from hybridvq.ranges import check_count, check_weight


@dataclass(frozen=True)
class Choice:
    """What is done to a distribution before something is drawn from it.

    Attributes:
        temperature: divides the logits, multiplies the deviation of a Gaussian; 0 takes the most likely symbol, and the
            mean of the heaviest Gaussian.
        top_k: draw from the k most likely symbols alone, of equally likely ones the first; None for all.
        top_p: draw from the fewest most likely symbols that hold this share of the mass (Holtzman et al. 2020,
            arXiv:1904.09751); None for all.
        guidance: w in logits = unconditional + w (conditional - unconditional) (Ho and Salimans 2022,
            arXiv:2207.12598, there 1 + w); 1 is the plain conditional model.

    Raises:
        ConfigError: one of them has no such value.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        check_weight("temperature", self.temperature)
        check_weight("guidance", self.guidance)
        if self.top_k is not None:
            check_count("top_k", self.top_k)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    def index(self, logits: Tensor, u: Tensor) -> Tensor:
        """A symbol (n,) int64 for each row of logits (n, K), by inverting the distribution at u (n,) in [0, 1)."""
        if self.temperature == 0:
            return logits.argmax(-1)
        logits = (logits - logits.amax(-1, keepdim=True)) / self.temperature
        cdf = self._keep(logits).softmax(-1).cumsum(-1)
        # Strictly below the last value, so that rounding never reaches beyond the last symbol that has any mass.
        target = u * (1 - 2**-20) * cdf[:, -1]
        return torch.searchsorted(cdf, target[:, None], right=True)[:, 0]

    def guide(self, logits: Sequence[Tensor]) -> Tensor:
        """The conditional logits, or conditional and unconditional ones combined."""
        if len(logits) == 1:
            return logits[0]
        conditional, unconditional = logits
        return unconditional + self.guidance * (conditional - unconditional)

    def _keep(self, logits: Tensor) -> Tensor:
        """Minus infinity for the symbols that are not drawn from."""
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            order = logits.argsort(descending=True, stable=True)
            logits = logits.scatter(-1, order[:, self.top_k :], -math.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = logits.sort(descending=True)
            p = ordered.softmax(-1)
            outside = p.cumsum(-1) - p >= self.top_p
            logits = logits.masked_fill(outside.scatter(-1, order, outside), -math.inf)
        return logits
