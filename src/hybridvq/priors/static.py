"""Tables: how often each code comes, and with which gains."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from hybridvq.errors import ConfigError
from hybridvq.priors.base import Prior, steps
from hybridvq.priors.checks import check_tokens
from hybridvq.priors.gains import MIN_DEVIATION, CategoricalHead
from hybridvq.quantizers import Tokens, TokenSpace

CODE_PSEUDO_COUNT = 0.5  # of each code: Krichevsky and Trofimov's estimator
GAIN_PSEUDO_COUNT = 1.0  # gains, distributed like all gains of the stage, that every code is given beside its own


class StaticPrior(Prior):
    r"""Code frequencies, and a distribution of gains for each code; nothing is read from the past.

        p(k) = (n_k + 1/2) / (n + K/2)
        gaussian       p(g | k) = N(mu_k, sigma_k^2), the moments of the n_k gains of code k and of 1 gain distributed
                       like all gains: codes with few gains shrink to the Gaussian of the stage
        categorical    p(l | k) = (n_kl + p_l) / (n_k + 1), with the share p_l of level l in the stage, smoothed as p(k)

    The tables are found in closed form by `fit`; before, codes are uniform and gains are like one another.

    Args:
        space, shape: as in `Prior`; it does every shape.
        classes: None; tables know no labels.
        gain: `gaussian`, or `categorical` where gains are levels; by default `categorical` for levels.

    Raises:
        ConfigError: an argument has no such value.
    """

    code_table: Tensor  # (S, K), log-probabilities
    gain_table: Tensor  # (S, K, outputs), parameters of the gain head

    def __init__(
        self, space: TokenSpace, shape: tuple[int, int], classes: int | None = None, gain: str | None = None
    ) -> None:
        if classes is not None:
            raise ConfigError(f"classes is {classes}, but static tables know no labels; leave it out")
        if gain == "mixture":
            raise ConfigError("static tables hold no 'mixture'; use 'gaussian', or 'categorical' for levels")
        super().__init__(space, shape, None, gain, components=1)
        self.register_buffer("code_table", torch.zeros(self.stages, self.codebook_size).log_softmax(1))
        start = torch.zeros(0) if self.gain_head is None else self.gain_head.start()
        self.register_buffer("gain_table", start.repeat(self.stages, self.codebook_size, 1))

    def context(self, tokens: Tokens, label: Tensor | None) -> Tensor:
        assert tokens.codes is not None
        return self.code_table.new_zeros(*tokens.codes.shape, 0)

    def walk(self, tokens: Tokens, label: Tensor | None, cache: bool = True) -> Iterator[Tensor]:
        assert tokens.codes is not None
        nothing = self.code_table.new_zeros(len(tokens.codes), 0)
        return (nothing for _ in steps(self.stages, tokens.codes.shape[2:]))

    def code_logits(self, context: Tensor, stage: int) -> Tensor:
        return self.code_table[stage].expand(*context.shape[:-1], -1)

    def gain_parameters(self, context: Tensor, codes: Tensor, stage: int) -> Tensor:
        return self.gain_table[stage][codes]

    @torch.no_grad()
    def fit(self, batches: Iterable[Tokens]) -> None:
        """Find the tables of the tokens in `batches`, in one pass; counts and moments are summed in float64.

        Raises:
            ConfigError, ShapeError: tokens are not of this space, or there are none.
        """
        counts = Counts(self)
        for tokens in batches:
            check_tokens(tokens, self.space)
            counts.add(tokens)
        if not counts.codes.any():
            raise ConfigError("there are no tokens to fit the static prior to")
        smooth = counts.codes + CODE_PSEUDO_COUNT
        self.code_table.copy_((smooth / smooth.sum(1, keepdim=True)).log())
        if self.gain_head is None:
            return
        mean, deviation = counts.moments_of_stage()
        self.gain_head.set_scale(mean, deviation)
        if isinstance(self.gain_head, CategoricalHead):
            self.gain_table.copy_(counts.level_logits())
        else:
            self.gain_table.copy_(counts.gaussians())


class Counts:
    """What `StaticPrior.fit` counts, on the CPU in float64: codes, levels, and first two moments of gains."""

    def __init__(self, prior: StaticPrior) -> None:
        shape = (prior.stages, prior.codebook_size)
        levels = prior.gain_head.outputs if isinstance(prior.gain_head, CategoricalHead) else 0
        self.head = prior.gain_head
        self.codes = torch.zeros(shape, dtype=torch.float64)
        self.sums, self.squares = torch.zeros_like(self.codes), torch.zeros_like(self.codes)
        self.levels = torch.zeros(*shape, levels, dtype=torch.float64)

    def add(self, tokens: Tokens) -> None:
        assert tokens.codes is not None
        for s in range(len(self.codes)):
            k = tokens.codes[:, s].flatten()
            self.codes[s] += torch.bincount(k, minlength=self.codes.shape[1]).cpu()
            if self.head is None or tokens.gains is None:
                continue
            gains = tokens.gains[:, s].flatten()
            values = self.head.values(gains, s).cpu()
            self.sums[s].index_add_(0, k.cpu(), values.double())
            self.squares[s].index_add_(0, k.cpu(), values.double().square())
            if self.levels.numel():
                pairs = torch.bincount(k * self.levels.shape[2] + gains, minlength=self.levels[s].numel())
                self.levels[s] += pairs.view_as(self.levels[s]).cpu()

    def moments_of_stage(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (S,) of all gains of each stage."""
        n = self.codes.sum(1)
        mean = self.sums.sum(1) / n
        return mean, (self.squares.sum(1) / n - mean.square()).clamp(min=0).sqrt()

    def gaussians(self) -> Tensor:
        """(S, K, 3): a log-weight of 0, mean and log-deviation of each code, in standard units."""
        mean, deviation = (part[:, None] for part in self.moments_of_stage())
        n, extra = self.codes + GAIN_PSEUDO_COUNT, GAIN_PSEUDO_COUNT
        means = (self.sums + extra * mean) / n
        squares = (self.squares + extra * (deviation.square() + mean.square())) / n
        deviations = (squares - means.square()).clamp(min=0).sqrt()
        unit = torch.where(deviation > 0, deviation, 1.0)
        log_deviations = (deviations / unit - MIN_DEVIATION).clamp(min=MIN_DEVIATION).log()
        return torch.stack([torch.zeros_like(means), (means - mean) / unit, log_deviations], 2)

    def level_logits(self) -> Tensor:
        """(S, K, L): log-probabilities of the levels of each code."""
        totals = self.levels.sum(1, keepdim=True) + CODE_PSEUDO_COUNT  # (S, 1, L)
        shares = totals / totals.sum(2, keepdim=True)
        smooth = self.levels + GAIN_PSEUDO_COUNT * shares
        return (smooth / smooth.sum(2, keepdim=True)).log()
