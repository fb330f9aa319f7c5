"""K code vectors and how they are kept alive: initialisation, moving averages, restarts."""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import nearest_code

KMEANS_ITERATIONS = 10
SMOOTHING = 1e-5


class Codebook(nn.Module):
    r"""K vectors of D numbers, learned by gradient or by exponential moving average.

        gradient   e_k is a parameter; the codebook loss ||sg[z] - e_k||^2 moves it
        ema        N_k <- d N_k + (1-d) n_k,   m_k <- d m_k + (1-d) sum z,   e_k <- m_k / N_k
                   with Laplace-smoothed N_k (arXiv:1711.00937, appendix A.1)

    Initialisation: `uniform`, U(-1/K, 1/K), as published; or `kmeans`, Lloyd's algorithm on the encoder's outputs
    for the first training batch. Every `restart_every` training steps (0: never) a code that no position has chosen
    since the last check moves to a randomly drawn encoder output of the current batch; its averages restart with
    it, and `restarted` names it so that a training loop can clear its optimizer moments.

    Statistics are summed over all processes, and random draws depend on the step alone, so every replica holds
    the same codes and a resumed run draws what an uninterrupted one would.

    Raises:
        ConfigError: an option has no such value, or `kmeans` finds fewer vectors than codes.
    """

    weight: Tensor  # (K, D)
    steps: Tensor  # () int64, training steps seen
    initialised: Tensor  # () bool
    recent_counts: Tensor  # (K,) positions that chose each code since the last restart check
    ema_counts: Tensor  # (K,)
    ema_sums: Tensor  # (K, D)

    def __init__(
        self,
        size: int,
        dim: int,
        learn: Literal["gradient", "ema"] = "gradient",
        init: Literal["uniform", "kmeans"] = "kmeans",
        restart_every: int = 50,
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"codebook_size is {size}; it must be at least 1")
        if learn not in ("gradient", "ema"):
            raise ConfigError(f"learn is {learn!r}; use 'gradient' or 'ema'")
        if init not in ("uniform", "kmeans"):
            raise ConfigError(f"init is {init!r}; use 'uniform' or 'kmeans'")
        self.learn, self.restart_every, self.decay = learn, restart_every, decay
        weight = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        if learn == "gradient":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("ema_counts", torch.ones(size))
            self.register_buffer("ema_sums", weight.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("initialised", torch.tensor(init == "uniform"))
        self.register_buffer("recent_counts", torch.zeros(size))
        self.restarted: Tensor | None = None  # (K,) bool, the codes replaced in this step

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors of `codes`, (...) int64 to (..., D)."""
        return F.embedding(codes, self.weight)

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """The nearest code of every row of z (N, D), as (N,) int64; in training, also keeps the codebook."""
        if self.training:
            self._prepare(z)
        codes = nearest_code(z, self.weight)
        if self.training:
            self._observe(z, codes)
        return codes

    def _prepare(self, z: Tensor) -> None:
        self.restarted = None
        step = int(self.steps)
        if not self.initialised:
            self._place(kmeans(gather(z), len(self.weight)), torch.ones_like(self.recent_counts, dtype=torch.bool))
            self.initialised.fill_(True)
        elif self.restart_every and step and step % self.restart_every == 0:
            dead = self.recent_counts == 0
            if dead.any():
                candidates = gather(z)
                draw = torch.randint(len(candidates), (len(dead),), generator=torch.Generator().manual_seed(step))
                self._place(candidates[draw.to(z.device)], dead)
                self.restarted = dead
            self.recent_counts.zero_()

    def _place(self, vectors: Tensor, where: Tensor) -> None:
        mask = where[:, None]
        self.weight.copy_(torch.where(mask, vectors, self.weight))
        if self.learn == "ema":
            self.ema_counts.masked_fill_(where, 1.0)
            self.ema_sums.copy_(torch.where(mask, vectors, self.ema_sums))

    def _observe(self, z: Tensor, codes: Tensor) -> None:
        self.steps += 1
        counts = total(torch.bincount(codes, minlength=len(self.weight)).to(z.dtype))
        self.recent_counts += counts
        if self.learn == "gradient":
            return
        sums = total(torch.zeros_like(self.ema_sums).index_add_(0, codes, z))
        self.ema_counts.lerp_(counts, 1 - self.decay)
        self.ema_sums.lerp_(sums, 1 - self.decay)
        n = self.ema_counts.sum()
        smooth = (self.ema_counts + SMOOTHING) / (n + len(counts) * SMOOTHING) * n
        self.weight.copy_(self.ema_sums / smooth[:, None])


def kmeans(z: Tensor, k: int) -> Tensor:
    """k cluster centres (k, D) of the rows of z (N, D) by Lloyd's algorithm, from a fixed random subset of rows.

    A centre that loses all its rows stays where it was.

    Raises:
        ConfigError: N < k.
    """
    if len(z) < k:
        raise ConfigError(
            f"codebook_size is {k}, but the first batch holds only {len(z)} encoder vectors to start the codes from; "
            "lower codebook_size, or raise batch_size or the image size"
        )
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    centres = z[order[:k].to(z.device)].clone()
    for _ in range(KMEANS_ITERATIONS):
        codes = nearest_code(z, centres)
        counts = torch.bincount(codes, minlength=k).to(z.dtype)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, codes, z)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def total(x: Tensor) -> Tensor:
    """x summed over all processes; x itself when there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(x)
    return x


def gather(z: Tensor) -> Tensor:
    """The rows of z (N, D) of all processes, in the order of their ranks; z itself when there is one."""
    if not (dist.is_available() and dist.is_initialized()):
        return z
    parts = [torch.empty_like(z) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, z.contiguous())
    return torch.cat(parts)
