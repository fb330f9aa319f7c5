"""The levels that gains are rounded to, and how often each is chosen with each code."""

import torch
from torch import Tensor, nn

from hybridvq.distributed import all_gather, all_reduce

MIN_SHARE = 1e-3  # of an even share: a level that fewer gains choose is dead
MIN_COUNT = 1e-6  # below it, an average of counts says nothing any more


class GainLevels(nn.Module):
    r"""L scalar levels that follow the distribution of the gains: Lloyd's algorithm by moving averages.

        n_l <- d n_l + (1-d) #{i : level(g_i) = l},   s_l <- d s_l + (1-d) sum of those g_i,   level_l = s_l / n_l

    They start at the quantiles (l + 1/2) / L of the first training batch, and every step leaves them in order. A level
    that no gain chooses any more moves into the fullest cell, where `assign` chooses. Sums are over all processes.

    Source: Lloyd 1982, "Least squares quantization in PCM", in one dimension, where the cells are intervals.
    """

    values: Tensor  # (L,) ascending after any training step
    counts: Tensor  # (L,)
    sums: Tensor  # (L,)
    initialised: Tensor  # () bool

    def __init__(self, levels: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("values", torch.linspace(0, 1, levels))
        self.register_buffer("counts", torch.ones(levels))
        self.register_buffer("sums", torch.linspace(0, 1, levels))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, levels: Tensor) -> Tensor:
        """The gains of `levels`, int64 to float32 of the same shape."""
        return self.values[levels]

    @torch.no_grad()
    def assign(self, gains: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest level of each gain, int64, and its value; in training, moves the levels afterwards."""
        if self.training and not self.initialised:
            self._start(gains)
        levels = torch.bucketize(gains, (self.values[1:] + self.values[:-1]) / 2)
        values = self(levels)
        if self.training:
            self.observe(gains, levels)
            self._revive()
        return levels, values

    def _start(self, gains: Tensor) -> None:
        n, ordered = len(self.values), all_gather(gains).sort().values
        starts = ordered[((torch.arange(n, device=gains.device) + 0.5) / n * len(ordered)).long()]
        self._set(starts, torch.full_like(starts, len(ordered) / n))
        self.initialised.fill_(True)

    @torch.no_grad()
    def observe(self, gains: Tensor, levels: Tensor) -> Tensor:
        """Move each level towards the gains that chose it; one that none has chosen for long stays where it is.

        While the gains move, a level may overtake its neighbor, so they are sorted after it. Returns the order (L,):
        the number that each level had before.
        """
        counts = all_reduce(torch.bincount(levels, minlength=len(self.values)).to(gains.dtype))
        sums = all_reduce(torch.zeros_like(self.sums).index_add_(0, levels, gains))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        values, order = torch.where(self.counts > MIN_COUNT, self.sums / self.counts, self.values).sort(stable=True)
        self._set(values, self.counts[order])
        return order

    def _revive(self) -> None:
        """One dead level per step moves beside the fullest one and takes half of its share."""
        dead = self.counts < MIN_SHARE * self.counts.mean()
        if not dead.any():
            return
        values, counts = self.values.clone(), self.counts.clone()
        fullest, lost = int(counts.argmax()), int(dead.nonzero()[0])
        below, above = max(fullest - 1, 0), min(fullest + 1, len(values) - 1)
        width = (values[above] - values[below]) / 4
        counts[lost] = counts[fullest] = counts[fullest] / 2
        values[lost] = values[fullest] + width
        values[fullest] = values[fullest] - width
        values, order = values.sort()
        self._set(values, counts[order])

    def _set(self, values: Tensor, counts: Tensor) -> None:
        self.values.copy_(values)
        self.counts.copy_(counts)
        self.sums.copy_(values * counts)


class PairShares(nn.Module):
    """The share of positions that choose each pair of code and level, by moving average over all processes."""

    shares: Tensor  # (K, L)

    def __init__(self, size: int, levels: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("shares", torch.full((size, levels), 1 / (size * levels)))

    def bits(self) -> Tensor:
        """What an ideal coder spends on each pair, (K, L): -log2 of its share."""
        return -self.shares.clamp(min=MIN_SHARE / self.shares.numel()).log2()

    @torch.no_grad()
    def observe(self, codes: Tensor, levels: Tensor | None = None) -> None:
        """Count the pairs of one batch, (N,) each; of codes without levels, L is 1."""
        n, k = self.shares.shape[1], self.shares.numel()
        pairs = codes if levels is None else codes * n + levels
        counts = all_reduce(torch.bincount(pairs, minlength=k).to(self.shares.dtype))
        self.shares.lerp_((counts / counts.sum()).view_as(self.shares), 1 - self.decay)

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Follow levels that were sorted: the one now in place l had the number order[l]."""
        self.shares.copy_(self.shares[:, order])

    @torch.no_grad()
    def restart(self, where: Tensor) -> None:
        """Give the codes `where` (K,) bool an even share, so that they are chosen again."""
        self.shares.masked_fill_(where[:, None], 1 / self.shares.numel())
