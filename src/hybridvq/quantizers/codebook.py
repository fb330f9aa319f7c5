"""K code vectors and how they are kept alive: initialization, moving averages, restarts."""

import warnings
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.distributed import all_gather, all_reduce, of_first, rank_and_size
from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import nearest_code, nearest_direction
from hybridvq.quantizers.levels import PairShares
from hybridvq.ranges import LARGEST_STEP, check_count, check_share

KMEANS_ITERATIONS = 10
SMOOTHING = 1e-5
REACH = 0.1  # of the way from a code vector in use to an encoder output


class CodeVectors(nn.Module, ABC):
    """K vectors of D numbers that are looked up, started from data, and restarted when nobody chooses them.

    A first batch of fewer than K positions starts as many code vectors; the others are copies of these until the next
    batches place them. Every `restart_every` training steps (0: never) a code that no position has chosen since the
    last check gets a vector at, or towards, a randomly drawn encoder output of the current batch; its averages restart
    with it, and `restarted` names it so that a training loop can clear its optimizer moments.

    Statistics are summed over all processes, and random draws depend on the step alone, so every replica holds
    the same vectors and a resumed run draws what an uninterrupted one would.
    """

    weight: Tensor  # (K, D), the code vectors
    steps: Tensor  # () int64, training steps seen
    initialised: Tensor  # () bool, whether each code has had a vector of its own
    recent_counts: Tensor  # (K,) positions that chose each code since the last restart check; -1 for a mere copy

    def __init__(self, size: int, restart_every: int, decay: float, initialised: bool) -> None:
        super().__init__()
        check_count("codebook_size", size)
        check_count("restart_every", restart_every, 0, LARGEST_STEP)
        check_share("decay", decay)
        self.restart_every, self.decay = restart_every, decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("initialised", torch.tensor(initialised))
        self.register_buffer("recent_counts", torch.zeros(size))
        self.restarted: Tensor | None = None  # (K,) bool, the codes replaced in this step

    @property
    def vectors(self) -> Tensor:
        """What the codes stand for, (K, D)."""
        return self.weight

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors of `codes`, (...) int64 to (..., D)."""
        return F.embedding(codes, self.vectors)

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """The code of every row of z (N, D), as (N,) int64; in training, also keeps the vectors."""
        if self.training:
            self.prepare(z)
        codes = self.search(z)
        if self.training:
            self.observe(z, codes)
        return codes

    @torch.no_grad()
    def prepare(self, z: Tensor) -> None:
        """Before a training step's search: start the vectors from z (N, D), or restart those of dead codes."""
        self.restarted = None
        step = int(self.steps)
        if not self.initialised:
            self._begin(all_gather(z), step)
        elif self.restart_every and step and step % self.restart_every == 0:
            dead = self.recent_counts == 0
            if dead.any():
                candidates = all_gather(z)
                draw = torch.randint(len(candidates), (len(dead),), generator=torch.Generator().manual_seed(step))
                self.place(self.near(candidates[draw.to(z.device)], dead), dead)
                self.restarted = dead
            self.recent_counts.zero_()

    def _begin(self, z: Tensor, step: int) -> None:
        """Start from the first batch z (N, D) of all processes, or place what it had no vector for."""
        if step == 0:
            self.place(of_first(self.start(z)), torch.ones_like(self.recent_counts, dtype=torch.bool))
            self.recent_counts[len(z) :] = -1
            if len(z) < len(self.weight) and rank_and_size()[0] == 0:
                warnings.warn(
                    f"codebook_size is {len(self.weight)}, and the first batch holds only {len(z)} encoder vectors to "
                    "start from; the other codes start from the next batches",
                    stacklevel=2,
                )
        else:
            missing = (self.recent_counts < 0).nonzero()[: len(z), 0]
            vectors, where = self.weight.clone(), torch.zeros_like(self.recent_counts, dtype=torch.bool)
            vectors[missing], where[missing] = draw_rows(z, len(missing), step), True
            self.place(vectors, where)
            self.restarted = where
            self.recent_counts[missing] = 0
        self.initialised.copy_((self.recent_counts >= 0).all())

    @torch.no_grad()
    def observe(self, z: Tensor, codes: Tensor) -> None:
        """After a training step's search: count, and let moving averages follow z (N, D) and its codes (N,)."""
        self.steps += 1
        counts = all_reduce(torch.bincount(codes, minlength=len(self.weight)).to(z.dtype))
        self.recent_counts += counts
        self.follow(z, codes, counts)

    @abstractmethod
    def search(self, z: Tensor) -> Tensor:
        """The code of every row of z (N, D), as (N,) int64."""

    @abstractmethod
    def start(self, z: Tensor) -> Tensor:
        """First vectors (K, D) for data like z (N, D); copies of the first N where N < K."""

    @abstractmethod
    def place(self, vectors: Tensor, where: Tensor) -> None:
        """Replace the vectors `where` (K,) bool by rows of `vectors` (K, D), and what is averaged with them."""

    def near(self, vectors: Tensor, dead: Tensor) -> Tensor:
        """Where codes `dead` (K,) bool restart for encoder outputs `vectors` (K, D): at these."""
        return vectors

    @abstractmethod
    def follow(self, z: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Move the averages by one batch z (N, D) with its codes (N,), of which there are `counts` (K,) in all."""


class Codebook(CodeVectors):
    r"""Code vectors for the Euclidean distance, learned by gradient or by exponential moving average.

        gradient   e_k is a parameter; the codebook loss ||sg[z] - e_k||^2 moves it
        ema        N_k <- d N_k + (1-d) n_k,   m_k <- d m_k + (1-d) sum z,   e_k <- m_k / N_k
                   with Laplace-smoothed N_k (arXiv:1711.00937, appendix A.1)

    Initialisation: `uniform`, U(-1/K, 1/K), as published; or `kmeans`, Lloyd's algorithm on the encoder's outputs
    for the first training batch. With `unit`, the vectors are the codes at length 1; rows of z have that length too.

    A moving average restarts at an encoder output. A parameter, which follows its vectors slowly, may have been left
    far behind by all of them, and a decoder that has never seen such vectors would be thrown; so it restarts a tenth of
    the way from the nearest vector in use to an encoder output.

    With a rate weight lambda > 0 a code is chosen by its bits too, argmin_j ||z - e_j||^2 + lambda b_j, where b_j is
    -log2 of its running share of positions (Chou, Lookabaugh and Gray 1989). A code that restarts has an even share.

    Raises:
        ConfigError: an option has no such value.
    """

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
        unit: bool = False,
        rate_weight: float = 0.0,
    ) -> None:
        super().__init__(size, restart_every, decay, initialised=init == "uniform")
        if learn not in ("gradient", "ema"):
            raise ConfigError(f"learn is {learn!r}; use 'gradient' or 'ema'")
        if init not in ("uniform", "kmeans"):
            raise ConfigError(f"init is {init!r}; use 'uniform' or 'kmeans'")
        self.learn, self.unit, self.rate_weight = learn, unit, rate_weight
        self.shares = PairShares(size, 1, decay) if rate_weight else None
        weight = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        if learn == "gradient":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("ema_counts", torch.ones(size))
            self.register_buffer("ema_sums", weight.clone())

    @property
    def vectors(self) -> Tensor:
        # Of a copy, since a backward pass needs what was normalized, and `Replay` moves the weight before it.
        return F.normalize(self.weight.clone(), dim=1) if self.unit else self.weight

    def search(self, z: Tensor) -> Tensor:
        if self.shares:
            return nearest_code(z, self.vectors, self.rate_weight * self.shares.bits()[:, 0])
        return nearest_direction(z, self.vectors) if self.unit else nearest_code(z, self.weight)

    def prepare(self, z: Tensor) -> None:
        super().prepare(z)
        if self.shares and self.restarted is not None:
            self.shares.restart(self.restarted)

    def observe(self, z: Tensor, codes: Tensor) -> None:
        super().observe(z, codes)
        if self.shares:
            self.shares.observe(codes)

    def start(self, z: Tensor) -> Tensor:
        return kmeans(z, len(self.weight), self.unit)

    def place(self, vectors: Tensor, where: Tensor) -> None:
        mask = where[:, None]
        self.weight.copy_(torch.where(mask, vectors, self.weight))
        if self.learn == "ema":
            self.ema_counts.masked_fill_(where, 1.0)
            self.ema_sums.copy_(torch.where(mask, vectors, self.ema_sums))

    def near(self, vectors: Tensor, dead: Tensor) -> Tensor:
        if self.learn == "ema" or dead.all():
            return vectors
        used = self.vectors[~dead]
        return used[nearest_code(vectors, used)].lerp(vectors, REACH)

    def follow(self, z: Tensor, codes: Tensor, counts: Tensor) -> None:
        if self.learn == "gradient":
            return
        self.ema_counts.lerp_(counts, 1 - self.decay)
        self.ema_sums.lerp_(all_reduce(sum_by_code(z, codes, len(counts))), 1 - self.decay)
        n = self.ema_counts.sum()
        smooth = (self.ema_counts + SMOOTHING) / (n + len(counts) * SMOOTHING) * n
        self.weight.copy_(self.ema_sums / smooth[:, None])


class Directions(CodeVectors):
    r"""Unit vectors, each the direction that keeps most of the vectors that chose it, by moving average.

        m_k <- d m_k + (1-d) sum <z, c_k> z,   c_k <- m_k / ||m_k||

    One step of power iteration towards the leading eigenvector of sum z z^T, which maximizes sum <z, c_k>^2 and so
    minimizes the error of these vectors with float gains. They start by the same steps on the first training batch. A
    zero vector has no direction and leaves a code where it is.
    """

    ema_sums: Tensor  # (K, D)

    def __init__(self, size: int, dim: int, restart_every: int = 50, decay: float = 0.99) -> None:
        super().__init__(size, restart_every, decay, initialised=False)
        self.register_buffer("weight", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ema_sums", self.weight.clone())

    def search(self, z: Tensor) -> Tensor:
        return nearest_direction(z, self.weight)

    def start(self, z: Tensor) -> Tensor:
        directions = unit_or(draw_rows(z, len(self.weight)), self.weight)
        for _ in range(KMEANS_ITERATIONS):
            directions = turn(directions, z, nearest_direction(z, directions))
        return directions

    def place(self, vectors: Tensor, where: Tensor) -> None:
        directions, mask = unit_or(vectors, self.weight), where[:, None]
        self.weight.copy_(torch.where(mask, directions, self.weight))
        self.ema_sums.copy_(torch.where(mask, directions, self.ema_sums))

    def follow(self, z: Tensor, codes: Tensor, counts: Tensor) -> None:
        gains = (z * self(codes)).sum(1, keepdim=True)
        self.ema_sums.lerp_(all_reduce(sum_by_code(gains * z, codes, len(counts))), 1 - self.decay)
        self.weight.copy_(unit_or(self.ema_sums, self.weight))


def turn(directions: Tensor, z: Tensor, codes: Tensor) -> Tensor:
    """One step of power iteration for each direction (K, D), on the rows of z (N, D) that chose it."""
    gains = (z * directions[codes]).sum(1, keepdim=True)
    return unit_or(sum_by_code(gains * z, codes, len(directions)), directions)


def unit_or(vectors: Tensor, fallback: Tensor) -> Tensor:
    """Each row of `vectors` at unit length; where it is zero, the row of `fallback`."""
    norms = vectors.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, vectors / norms.clamp(min=1e-30), fallback)


def sum_by_code(z: Tensor, codes: Tensor, k: int) -> Tensor:
    """(k, D): the sum of the rows of z (N, D) of each code (N,)."""
    return z.new_zeros(k, z.shape[1]).index_add_(0, codes, z)


def draw_rows(z: Tensor, k: int, seed: int = 0) -> Tensor:
    """k rows of z (N, D), the same ones each time; each differs from those before it until all N are drawn."""
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed)).to(z.device)
    return z[order[torch.arange(k, device=z.device) % len(z)]].clone()


def kmeans(z: Tensor, k: int, unit: bool = False) -> Tensor:
    """k cluster centers (k, D) of the rows of z (N, D) by Lloyd's algorithm, from a fixed random subset of rows.

    A center that loses all its rows stays where it was. With `unit`, rows and centers have length 1.
    """
    centers = draw_rows(z, k)
    for _ in range(KMEANS_ITERATIONS):
        codes = nearest_code(z, centers)
        counts = torch.bincount(codes, minlength=k)[:, None]
        centers = torch.where(counts > 0, sum_by_code(z, codes, k) / counts.clamp(min=1), centers)
        centers = unit_or(centers, centers) if unit else centers
    return centers
