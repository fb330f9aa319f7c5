"""The distribution of a gain, given the numbers that a prior says of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.priors.choice import Choice
from hybridvq.priors.normal import log_normal_density, log_normal_mass
from hybridvq.quantizers import TokenSpace
from hybridvq.ranges import check_count

HEADS = ("categorical", "gaussian", "mixture")
MIN_DEVIATION = 1e-3  # of a component, in deviations of all gains
MAX_LOG_DEVIATION = 7.0
FAR = 1e4  # where a line ends, in deviations of all gains
FLOOR = 1e-6  # of the mass of a density over levels, spread evenly: a level that moved far away stays possible

Cells = tuple[Tensor, Tensor]  # lower and upper edges


class GainHead(nn.Module, ABC):
    """p(g | parameters): what `outputs` numbers say of a gain, a level or a float.

    Works in standard units, (g - mean) / deviation of all gains of the stage, so that networks learn at unit scale;
    densities and edges are those of g itself.
    """

    level_values: Tensor | None  # (S, L)
    mean: Tensor  # (S,)
    deviation: Tensor  # (S,)

    def __init__(self, space: TokenSpace, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        values = space.level_values
        self.register_buffer("level_values", None if values is None else values.clone())
        self.register_buffer("mean", torch.zeros(space.stages))
        self.register_buffer("deviation", torch.ones(space.stages))
        if values is not None:
            self.set_scale(values.mean(1), values.std(1, correction=0))

    @abstractmethod
    def start(self) -> Tensor:
        """Parameters (outputs,) of a distribution as wide as that of all gains."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, gains: Tensor, stage: int, cells: Cells | None = None) -> Tensor:
        """log p(g), (...), of gains (...) under parameters (..., outputs), in nats.

        A log-probability where gains are levels, a log-density where they are floats; with `cells`, the log-mass
        between their edges.
        """

    @abstractmethod
    def log_pmf(self, parameters: Tensor, stage: int) -> Tensor:
        """log p of every level, (..., outputs) to (..., L); only where gains are levels."""

    @abstractmethod
    def draw(self, parameters: Sequence[Tensor], stage: int, choice: Choice, u: Tensor) -> Tensor:
        """Gains (n,) from uniform numbers u (2, n).

        `parameters` are the conditional ones (n, outputs), and with guidance the unconditional ones.
        """

    @torch.no_grad()
    def fit(self, gains: Tensor) -> None:
        """Take location and scale of each stage from gains (B, S, h, w)."""
        values = torch.stack([self.values(gains[:, s], s).double().flatten() for s in range(gains.shape[1])])
        self.set_scale(values.mean(1), values.std(1, correction=0))

    @torch.no_grad()
    def set_scale(self, mean: Tensor, deviation: Tensor) -> None:
        """Set location and scale (S,) of each stage; a deviation of 0 is taken for 1."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def values(self, gains: Tensor, stage: int) -> Tensor:
        """What gains (...) of a stage stand for, float32."""
        return gains if self.level_values is None else self.level_values[stage][gains]

    def standardise(self, values: Tensor, stage: int) -> Tensor:
        """Float gains in standard units."""
        return (values - self.mean[stage]) / self.deviation[stage]


class CategoricalHead(GainHead):
    """A probability for each of L levels.

    Raises:
        ConfigError: gains are floats.
    """

    def __init__(self, space: TokenSpace) -> None:
        if space.levels is None:
            raise ConfigError(
                "a categorical gain needs levels, and these gains are floats; use 'gaussian' or 'mixture'"
            )
        super().__init__(space, space.levels)

    def start(self) -> Tensor:
        return torch.zeros(self.outputs)

    def log_prob(self, parameters: Tensor, gains: Tensor, stage: int, cells: Cells | None = None) -> Tensor:
        return -F.cross_entropy(parameters.float().flatten(0, -2), gains.flatten(), reduction="none").view_as(gains)

    def log_pmf(self, parameters: Tensor, stage: int) -> Tensor:
        return parameters.float().log_softmax(-1)

    def draw(self, parameters: Sequence[Tensor], stage: int, choice: Choice, u: Tensor) -> Tensor:
        return choice.index(choice.guide([p.float() for p in parameters]), u[0])


class DensityHead(GainHead):
    r"""A mixture of M Gaussians, integrated over the cell of a level where gains are levels.

        p(g) = sum_m w_m N(g; mu_m, sigma_m^2)         w = softmax of the first M parameters
        P(l) = (1 - FLOOR) (Phi at the upper - Phi at the lower edge of l's cell, mixed alike) + FLOOR / L

    The cell of a level ends half way to its neighbors; the outer two are infinite. sigma = MIN_DEVIATION + exp(.) in
    standard units, so no density can grow without bound. Guidance does not act on it: what is extrapolated between
    two Gaussians need not be one.

    Source: Bishop 1994, "Mixture density networks"; Salimans et al. 2017, arXiv:1701.05517 (masses of cells).

    Args:
        components: M; 1 is a Gaussian.
    """

    def __init__(self, space: TokenSpace, components: int) -> None:
        check_count("components", components)
        super().__init__(space, 3 * components)

    def start(self) -> Tensor:
        m = self.outputs // 3
        quantiles = torch.special.ndtri((torch.arange(m) + 0.5) / m)
        return torch.cat([torch.zeros(m), quantiles, torch.full((m,), -0.5 * math.log(m))])

    def log_prob(self, parameters: Tensor, gains: Tensor, stage: int, cells: Cells | None = None) -> Tensor:
        if self.level_values is not None:
            lower, upper = (edges[gains] for edges in self._bins(stage))
            return self._with_floor(self._log_mass(parameters, lower, upper))
        if cells is not None:
            lower, upper = (self.standardise(edges, stage).clamp(-FAR, FAR) for edges in cells)
            return self._log_mass(parameters, lower, upper)
        log_weights, means, deviations = split(parameters)
        z = (self.standardise(gains, stage)[..., None] - means) / deviations
        log_density = (log_weights + log_normal_density(z) - deviations.log()).logsumexp(-1)
        return log_density - self.deviation[stage].log()

    def log_pmf(self, parameters: Tensor, stage: int) -> Tensor:
        lower, upper = self._bins(stage)
        return self._with_floor(self._log_mass(parameters[..., None, :], lower, upper))

    def draw(self, parameters: Sequence[Tensor], stage: int, choice: Choice, u: Tensor) -> Tensor:
        log_weights, means, deviations = split(parameters[0])
        which = choice.index(log_weights, u[0])[:, None]
        mean, deviation = means.gather(1, which)[:, 0], deviations.gather(1, which)[:, 0]
        z = mean + choice.temperature * deviation * torch.special.ndtri(u[1].clamp(min=2**-25))
        if self.level_values is None:
            return self.mean[stage] + self.deviation[stage] * z
        order, edges = self._edges(stage)
        return order[torch.bucketize(z, edges)]

    def _log_mass(self, parameters: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        log_weights, means, deviations = split(parameters)
        lower, upper = ((edge[..., None] - means) / deviations for edge in (lower, upper))
        return (log_weights + log_normal_mass(lower, upper)).logsumexp(-1)

    def _with_floor(self, log_mass: Tensor) -> Tensor:
        assert self.level_values is not None
        floor = torch.full_like(log_mass, math.log(FLOOR / self.level_values.shape[1]))
        return torch.logaddexp(log_mass + math.log1p(-FLOOR), floor)

    def _edges(self, stage: int) -> tuple[Tensor, Tensor]:
        """The levels in the order of their values (L,), and the edges between them (L - 1,) in standard units."""
        assert self.level_values is not None
        ordered, order = self.level_values[stage].sort()
        return order, self.standardise((ordered[1:] + ordered[:-1]) / 2, stage)

    def _bins(self, stage: int) -> Cells:
        """Lower and upper edge of the cell of each level, (L,) each, in standard units."""
        order, edges = self._edges(stage)
        lower, upper = F.pad(edges, (1, 0), value=-FAR), F.pad(edges, (0, 1), value=FAR)
        return torch.empty_like(lower).scatter(0, order, lower), torch.empty_like(upper).scatter(0, order, upper)


def split(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights, means and deviations, (..., M) each, of parameters (..., 3 M)."""
    logits, means, log_deviations = parameters.float().chunk(3, -1)
    return logits.log_softmax(-1), means, MIN_DEVIATION + log_deviations.clamp(max=MAX_LOG_DEVIATION).exp()


def build_gain_head(space: TokenSpace, name: str | None = None, components: int = 8) -> GainHead | None:
    """The head called `name`; by default `categorical` for levels and `mixture` for floats, none for codes alone.

    Raises:
        ConfigError: there is no such head, or it cannot model these gains.
    """
    if name is not None and name not in HEADS:
        near = did_you_mean(name, HEADS)
        raise ConfigError(f"there is no gain head named {name!r}{near}; choose one of {', '.join(HEADS)}")
    if space.gain == "none":
        return None
    if (name or ("categorical" if space.levels else "mixture")) == "categorical":
        return CategoricalHead(space)
    return DensityHead(space, 1 if name == "gaussian" else components)
