"""What every prior shares: the score of tokens, and drawing them.

    p(codes, gains | label) = prod_t p(k_t | past) p(g_t | k_t, past)

t runs over positions in raster order, and over the stages of a position innermost: first which code, then how far
along it.

    tokens ──► context (B,S,h,w,F) ──► code_logits ──► p(k_t | past)
                   │
                   └── with k_t ──► gain_parameters ──► p(g_t | k_t, past)
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.devices import evaluating
from hybridvq.errors import ConfigError, ShapeError
from hybridvq.priors.checks import check_cells, check_given, check_label, check_tokens
from hybridvq.priors.choice import Choice
from hybridvq.priors.gains import Cells, build_gain_head
from hybridvq.quantizers import Tokens, TokenSpace
from hybridvq.ranges import check_count, check_weight

PASSES, NOISE = 16, 4.5  # of a prior that draws in passes, where nothing else is asked for


@dataclass(frozen=True)
class Score:
    """Log-probabilities in nats.

    Attributes:
        code: (B, S, h, w), log p(k_t | past).
        gain: (B, S, h, w), log p(g_t | k_t, past): of a level its log-probability, of a float its log-density, or the
            log-mass of its cell; None where codes have no gains.
    """

    code: Tensor
    gain: Tensor | None

    def total(self) -> Tensor:
        """The log-probability of each image, (B,)."""
        total = self.code if self.gain is None else self.code + self.gain
        return total.flatten(1).sum(1)


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn, see `Prior.sample`."""

    choice: Choice
    labels: list[Tensor | None]  # of the images, and none beside them where they guide
    generator: torch.Generator | None
    cache: bool
    passes: int
    noise: float
    progress: Callable[[int, int], object]


class Prior(nn.Module, ABC):
    """A distribution of the tokens of an image; autoregressive, unless it says otherwise.

    Args:
        space: what tokens are; it is saved with the weights.
        shape: (h, w), the grid it is built for.
        classes: number of class labels, None for an unconditional prior.
        gain: name of the gain head, see `build_gain_head`.
        components: Gaussians of a `mixture`.

    Raises:
        ConfigError: an argument has no such value.
    """

    vectors: Tensor  # (K, C), or (S, K, C)
    label_dropout: float = 0.0  # the share of labels left out in training
    in_passes: bool = False  # whether many codes are drawn at a time, and those not kept again in the next pass

    def __init__(
        self, space: TokenSpace, shape: tuple[int, int], classes: int | None, gain: str | None, components: int
    ) -> None:
        super().__init__()
        if obstacle := space.obstacle:
            raise ConfigError(
                f"these tokens hold {obstacle}, so no prior here can model them; priors take a code, or a code and a "
                "gain, at every position, as a vector, projected, gain-shape or fsq tokenizer gives"
            )
        if len(shape) != 2:
            raise ConfigError(f"shape is {tuple(shape)}; give the height and width of the grid of positions")
        for i, side in enumerate(shape):
            check_count(f"shape[{i}]", side)
        if classes is not None:
            check_count("classes", classes)
        self.shape, self.classes = (int(shape[0]), int(shape[1])), classes
        self.codebook_size, self.stages, self.kind = space.codebook_size, space.stages, space.gain
        self.gain, self.components = gain, components
        assert space.vectors is not None
        self.register_buffer("vectors", space.vectors.detach().float().clone())
        self.gain_head = build_gain_head(space, gain, components)

    @abstractmethod
    def context(self, tokens: Tokens, label: Tensor | None) -> Tensor:
        """What is known of each code before it is read, (B, S, h, w, F), from its past alone."""

    @abstractmethod
    def code_logits(self, context: Tensor, stage: int) -> Tensor:
        """Logits (..., K) of the code of a stage, from contexts (..., F)."""

    @abstractmethod
    def gain_parameters(self, context: Tensor, codes: Tensor, stage: int) -> Tensor:
        """What the gain head reads, (..., outputs), from contexts (..., F) and the codes (...) they led to."""

    def walk(self, tokens: Tokens, label: Tensor | None, cache: bool = True) -> Iterator[Tensor]:
        """The context (B, F) of each code, in the order of `steps`.

        The caller writes each code and its gain into `tokens` before asking for the next context. Here the whole
        grid is run again at every step, as first published; a prior that can keep its past overrides this.
        """
        assert tokens.codes is not None
        for s, i, j in steps(self.stages, tokens.codes.shape[2:]):
            yield self.context(tokens, label)[:, s, i, j]

    @property
    def knows_unlabeled(self) -> bool:
        """Whether images without a label were learned: there are no classes, or labels were left out in training."""
        return self.classes is None or self.label_dropout > 0

    @property
    def space(self) -> TokenSpace:
        """What tokens are."""
        values = None if self.gain_head is None else self.gain_head.level_values
        return TokenSpace(self.codebook_size, self.stages, self.kind, values, self.vectors)

    def code_vectors(self, stage: int) -> Tensor:
        """The vectors (K, C) of the codes of a stage."""
        return self.space.code_vectors(stage)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that build this prior again, other than space, shape and classes."""
        own = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in own if name not in ("space", "shape", "classes")}

    def fit_scale(self, gains: Tensor) -> None:
        """Learn gains in the units of `gains` (B, S, h, w), a sample of the training set; before training."""
        if self.gain_head is not None:
            self.gain_head.fit(gains)

    def forward(self, tokens: Tokens, label: Tensor | None = None, cells: Cells | None = None) -> Score:
        """As `score`."""
        return self.score(tokens, label, cells)

    def score(self, tokens: Tokens, label: Tensor | None = None, cells: Cells | None = None) -> Score:
        """Log-probabilities of tokens; minus their mean is the training loss.

        Args:
            tokens: codes and gains (B, S, h, w).
            label: (B,) int64; None where a picture of any class is meant, which takes a `label_dropout` to learn.
            cells: lower and upper edges (B, S, h, w) of the cell of each float gain, for the log-mass of the cell
                instead of the log-density of the gain.

        Raises:
            ConfigError: tokens, label or cells are of another kind, or out of range.
            ShapeError: their shapes are not those above, or the grid is larger than this prior can do.
        """
        self.check(tokens, label, cells)
        return self.score_in(self.context(tokens, label), tokens, cells)

    def check(self, tokens: Tokens, label: Tensor | None, cells: Cells | None) -> None:
        """Raise unless `score` can take these, as it says."""
        check_tokens(tokens, self.space)
        assert tokens.codes is not None
        self.check_shape(tuple(tokens.codes.shape[2:]))
        check_label(label, len(tokens.codes), self.classes, self.knows_unlabeled)
        check_cells(cells, tokens.codes, self.kind)

    def score_in(self, context: Tensor, tokens: Tokens, cells: Cells | None) -> Score:
        """Log-probabilities of tokens, each in its context (B, S, h, w, F)."""
        codes, gains = tokens.codes, tokens.gains
        assert codes is not None
        code, gain = [], []
        for s in range(self.stages):
            k, past = codes[:, s], context[:, s]
            code.append(log_softmax_at(self.code_logits(past, s), k))
            if self.gain_head is not None and gains is not None:
                cell = None if cells is None else (cells[0][:, s], cells[1][:, s])
                gain.append(self.gain_head.log_prob(self.gain_parameters(past, k, s), gains[:, s], s, cell))
        return Score(torch.stack(code, 1), torch.stack(gain, 1) if gain else None)

    def log_prob(self, tokens: Tokens, label: Tensor | None = None) -> Tensor:
        """log p(tokens | label) of each image, (B,), in nats."""
        return self.score(tokens, label).total()

    def sample(
        self,
        n: int,
        shape: tuple[int, int],
        label: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        given: Tokens | None = None,
        keep: Tensor | None = None,
        generator: torch.Generator | None = None,
        cache: bool = True,
        passes: int | None = None,
        noise: float | None = None,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> Tokens:
        """Draw n grids of tokens, one code and one gain at a time, or in passes.

        Random numbers are drawn on the CPU and their number depends on n, shape and passes alone, so a seed means the
        same picture whatever is kept, with and without a cache, and, to rounding, on every device.

        Args:
            n: how many.
            shape: (h, w).
            label: (n,) int64; None for any class, as in `score`. Guidance takes a `label_dropout` too.
            temperature, top_k, top_p, guidance: see `Choice`.
            given, keep: tokens (n or 1, S, h, w), and the positions (h, w) bool that are taken from them.
            generator: a CPU generator; None for torch's own.
            cache: keep the past between steps where the prior can; False runs the whole grid at every step.
            passes, noise: of a prior that draws in passes, how many (16 if None, and no more than codes), and how far
                chance decides which codes a pass keeps (4.5 if None; 0 keeps the surest).
            progress: called after each code, or pass, with how many are done and how many there are.

        Raises:
            ConfigError: an argument has no such value.
            ShapeError: n or a shape is not as above, or the grid is larger than this prior can do.
        """
        choice = Choice(temperature, top_k, top_p, guidance)
        if n < 1:
            raise ShapeError(f"n is {n}; draw at least 1 grid of tokens")
        self.check_shape(shape)
        check_label(label, n, self.classes, self.knows_unlabeled)
        check_given(given, keep, n, tuple(shape), self.space)
        if guidance != 1 and label is None:
            raise ConfigError(f"guidance is {guidance}, but there is no label to guide towards; give label")
        if guidance != 1 and not self.knows_unlabeled:
            raise ConfigError(
                f"guidance is {guidance}, but this prior was trained without label dropout, so it has nothing to guide "
                "away from; leave guidance at 1, or train it with a label_dropout above 0"
            )
        for name, value in (("passes", passes), ("noise", noise)):
            if value is not None and not self.in_passes:
                raise ConfigError(f"{name} is {value}, but this prior draws one code after another; leave it out")
        passes, noise = PASSES if passes is None else passes, NOISE if noise is None else noise
        check_count("passes", passes)
        check_weight("noise", noise)
        tokens = self._blank(n, shape, given, keep)
        labels = [label] if guidance == 1 else [label, None]
        with evaluating(self), torch.inference_mode():
            self._fill(tokens, keep, Drawing(choice, labels, generator, cache, passes, noise, progress))
        return tokens

    def _fill(self, tokens: Tokens, keep: Tensor | None, how: Drawing) -> None:
        codes, gains, choice = tokens.codes, tokens.gains, how.choice
        assert codes is not None
        n, _, h, w = codes.shape
        u = torch.rand(self.stages * h * w, 3, n, generator=how.generator).to(codes.device)
        kept = torch.zeros(h, w, dtype=torch.bool) if keep is None else keep.cpu()
        walks = zip(*(self.walk(tokens, label, how.cache) for label in how.labels), strict=True)
        for t, ((s, i, j), contexts) in enumerate(zip(steps(self.stages, (h, w)), walks, strict=True)):
            how.progress(t + 1, len(u))
            if kept[i, j]:
                continue
            k = choice.index(choice.guide([self.code_logits(c, s).float() for c in contexts]), u[t, 0])
            codes[:, s, i, j] = k
            if self.gain_head is not None and gains is not None:
                parameters = [self.gain_parameters(c, k, s) for c in contexts]
                gains[:, s, i, j] = self.gain_head.draw(parameters, s, choice, u[t, 1:])

    def _blank(self, n: int, shape: tuple[int, int], given: Tokens | None, keep: Tensor | None) -> Tokens:
        """Tokens to fill: those given where they are kept, zeros elsewhere."""
        blank = torch.zeros(n, self.stages, *shape, dtype=torch.long, device=self.vectors.device)
        codes, gains = blank, None
        if self.kind != "none":
            gains = blank.float() if self.kind == "float" else blank.clone()
        if given is not None and keep is not None and given.codes is not None:
            keep = keep.to(blank.device)
            codes = torch.where(keep, given.codes.to(blank.device), codes)
            if gains is not None and given.gains is not None:
                gains = torch.where(keep, given.gains.to(blank.device), gains)
        return Tokens(codes=codes, gains=gains)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless this prior can do a grid of this shape."""
        if len(shape) != 2 or min(shape) < 1:
            raise ShapeError(f"shape is {tuple(shape)}; give the height and width of a grid of positions")


def steps(stages: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """(s, i, j) of every code in order: positions row by row, the stages of each innermost."""
    return ((s, i, j) for i in range(shape[0]) for j in range(shape[1]) for s in range(stages))


def log_softmax_at(logits: Tensor, index: Tensor) -> Tensor:
    """log softmax(logits) (..., K) at index (...), in float32."""
    return -F.cross_entropy(logits.float().flatten(0, -2), index.flatten(), reduction="none").view_as(index)
