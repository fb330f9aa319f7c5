"""A decoder-only transformer over the sequence of positions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hybridvq.priors.attention import AttentionPrior, Past
from hybridvq.priors.base import steps
from hybridvq.quantizers import Tokens


class TransformerPrior(AttentionPrior):
    r"""Attention to every code and gain before.

        read at t   embed(k_{t-1}, g_{t-1}), or the start for t = 0

    In sampling, the keys and values of the past are kept, so that a step costs one position and not T.

    The rest, and the arguments, are as in `AttentionPrior`.
    """

    causal = True

    def context(self, tokens: Tokens, label: Tensor | None) -> Tensor:
        assert tokens.codes is not None
        n, _, h, w = tokens.codes.shape
        return self.attend(torch.cat([self.start.expand(n, 1, -1), self.read(tokens)[:, :-1]], 1), label, h, w)

    def walk(self, tokens: Tokens, label: Tensor | None, cache: bool = True) -> Iterator[Tensor]:
        if not cache:
            yield from super().walk(tokens, label)
            return
        codes, gains = tokens.codes, tokens.gains
        assert codes is not None
        n, _, h, w = codes.shape
        places = self.places(h, w)
        c = self.embed_label(label, n)
        fixed = places[:, None] if c is None else places[:, None] + c  # (T, 1 or B, width)
        past = [Past((n, self.heads, len(places), self.width // self.heads), places) for _ in self.blocks]
        x = self.start.expand(n, -1)
        for t, (s, i, j) in enumerate(steps(self.stages, (h, w))):
            x = (x + fixed[t])[:, None]
            for block, seen in zip(self.blocks, past, strict=True):
                x = block(x, seen)
            yield self.norm(x[:, 0])
            x = self.embed(codes[:, s, i, j], None if gains is None else gains[:, s, i, j], s)
