"""A transformer that fills in codes at any places, many at a time."""

import math

import torch
from torch import Tensor

from hybridvq.priors.attention import AttentionPrior
from hybridvq.priors.base import Drawing, Score, log_softmax_at
from hybridvq.priors.gains import Cells
from hybridvq.quantizers import Tokens

SCORE_SEED = 0  # of what is hidden where a score is measured, so that measurements can be compared


class MaskedPrior(AttentionPrior):
    r"""Attention to every code and gain that is not hidden, before and after.

        read at t   embed(k_t, g_t), or one vector for all that are hidden
        hidden      m = ceil(T r) of T codes with their gains, at random places
        score       T / m log p(k_t | what is not hidden) of each hidden code and 0 of the others, gains alike

    In training r = cos(pi u / 2) for uniform u: the mean over hidden codes, mostly with few others to go by, as in
    drawing. In evaluation r is uniform, and the sum over an image estimates, in one pass, the mean over all orders of
    the log-probability of the image drawn code by code in that order. That mean is a lower bound of log p, so the bits
    of this prior are an upper bound, measured with noise; those of one image alone say little.

    Drawing takes a few passes. Each draws all hidden codes, and their gains, by themselves, keeps those that it is
    surest of, log p(k_t | ...) + noise, and hides the rest again: floor(T cos(pi i / 2 N)) of them after pass i of N,
    and fewer than before. The noise is Gumbel's times `noise`, falling linearly to 0 at the last pass.

    The rest, and the arguments, are as in `AttentionPrior`.

    Sources: Chang et al. 2022, "MaskGIT", arXiv:2202.04200; Hoogeboom et al. 2021, arXiv:2110.02037 (the bound).
    """

    causal = False
    in_passes = True

    def context(self, tokens: Tokens, label: Tensor | None, hidden: Tensor | None = None) -> Tensor:
        """What is known of each code from those that are not `hidden`, (B, S, h, w) bool; None hides all."""
        assert tokens.codes is not None
        n, _, h, w = tokens.codes.shape
        if hidden is None:
            return self.attend(self.start.expand(n, self.stages * h * w, -1), label, h, w)
        unknown = hidden.permute(0, 2, 3, 1).flatten(1)[..., None]
        return self.attend(torch.where(unknown, self.start, self.read(tokens)), label, h, w)

    def score(self, tokens: Tokens, label: Tensor | None = None, cells: Cells | None = None) -> Score:
        """An estimate of log-probabilities of tokens, see above; arguments and errors are as in `Prior.score`."""
        self.check(tokens, label, cells)
        assert tokens.codes is not None
        hidden = self.hide(tokens.codes)
        score = self.score_in(self.context(tokens, label, hidden), tokens, cells)
        weight = hidden * (hidden[0].numel() / hidden.sum((1, 2, 3), keepdim=True))
        return Score(score.code * weight, None if score.gain is None else score.gain * weight)

    def hide(self, codes: Tensor) -> Tensor:
        """Which codes of (B, S, h, w) are hidden, bool."""
        n, total = len(codes), codes[0].numel()
        generator = None if self.training else torch.Generator().manual_seed(SCORE_SEED)
        u = torch.rand(n, generator=generator)
        even = (torch.randperm(n, generator=generator) + u) / n  # one in each of n equal parts
        share = (u * math.pi / 2).cos() if self.training else 1 - even
        count = (total * share).ceil().clamp(1, total)
        ranks = torch.rand(n, total, generator=generator).argsort(1).argsort(1)
        return (ranks < count[:, None]).view(codes.shape).to(codes.device)

    def _fill(self, tokens: Tokens, keep: Tensor | None, how: Drawing) -> None:
        codes, gains, choice = tokens.codes, tokens.gains, how.choice
        assert codes is not None
        hidden = torch.ones_like(codes, dtype=torch.bool)
        if keep is not None:
            hidden &= ~keep.to(codes.device)
        schedule = hidden_after(int(hidden[0].sum()), how.passes)
        u = torch.rand(min(how.passes, codes[0].numel()), 4, *codes.shape, generator=how.generator).to(codes.device)
        for i, left in enumerate(schedule):
            contexts = [self.context(tokens, label, hidden) for label in how.labels]
            sure = torch.empty(codes.shape, device=codes.device)
            for s in range(self.stages):
                logits = choice.guide([self.code_logits(c[:, s], s).float().flatten(0, 2) for c in contexts])
                k, at = choice.index(logits, u[i, 0, :, s].flatten()), hidden[:, s]
                sure[:, s] = log_softmax_at(logits, k).view_as(at)
                codes[:, s] = torch.where(at, k.view_as(at), codes[:, s])
                if self.gain_head is not None and gains is not None:
                    parameters = [self.gain_parameters(c[:, s].flatten(0, 2), k, s) for c in contexts]
                    g = self.gain_head.draw(parameters, s, choice, u[i, 1:3, :, s].flatten(1))
                    gains[:, s] = torch.where(at, g.view_as(at), gains[:, s])
            noise = how.noise * (1 - (i + 1) / len(schedule))
            sure += noise * -(-u[i, 3].clamp(1e-20, 1 - 2**-24).log()).log()
            ranks = sure.masked_fill(~hidden, math.inf).flatten(1).argsort(1).argsort(1)
            hidden = (ranks < left).view_as(hidden)
            how.progress(i + 1, len(schedule))


def hidden_after(total: int, passes: int) -> list[int]:
    """How many of `total` codes are hidden after each of so many passes, each of which keeps at least one."""
    hidden, n = [total], min(passes, total)
    for i in range(1, n + 1):
        hidden.append(min(math.floor(total * math.cos(math.pi / 2 * i / n) + 1e-9), hidden[-1] - 1))
    return hidden[1:]
