"""What priors that are networks share: tokens go in by the geometry of the codebook, and come out by it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.priors.base import Prior
from hybridvq.quantizers import TokenSpace
from hybridvq.ranges import check_count, check_share

SMALL = 0.02  # deviation of output weights, so that an untrained prior spends about log K on a code
GAIN_FEATURES = 32
FURTHEST = 8.0  # deviations; networks read gains no further out than this


class NetworkPrior(Prior):
    r"""A prior whose context is a hidden vector h of `width` numbers.

        input      embed(k, g) = E[k] + A (g v_k / scale) + f(g)          v_k: code vector k, f: a small network
        code       logits_k = w_k h + b_k + <U h, v_k>
        gain       parameters = W gelu(B h + E'[k] + C v_k)

    so that codes of similar direction share what is learned of them from the first step.

    Labels are vectors, with one more for "no label", which a share `label_dropout` of labels is replaced with in
    training: the unconditional model of classifier-free guidance (arXiv:2207.12598).
    """

    unit: Tensor  # (), the rms entry of a vector

    def __init__(
        self,
        space: TokenSpace,
        shape: tuple[int, int],
        classes: int | None,
        gain: str | None,
        components: int,
        width: int,
        label_dropout: float,
    ) -> None:
        super().__init__(space, shape, classes, gain, components)
        check_count("width", width)
        check_share("label_dropout", label_dropout)
        self.width, self.label_dropout = width, label_dropout
        self.register_buffer("unit", self.vectors.square().mean().sqrt().clamp(min=1e-12))
        self.embedding = TokenEmbedding(space, width)
        self.code_output = CodeOutput(space, width)
        self.gain_output = GainOutput(space, width, self.gain_head.start()) if self.gain_head is not None else None
        self.label_embedding = nn.Embedding(classes + 1, width) if classes is not None else None
        if self.label_embedding is not None:
            nn.init.normal_(self.label_embedding.weight, std=SMALL)

    def code_logits(self, context: Tensor, stage: int) -> Tensor:
        return self.code_output(context, self.code_vectors(stage) / self.unit, stage)

    def gain_parameters(self, context: Tensor, codes: Tensor, stage: int) -> Tensor:
        assert self.gain_output is not None
        return self.gain_output(context, codes, self.code_vectors(stage)[codes] / self.unit, stage)

    def embed(self, codes: Tensor, gains: Tensor | None, stage: int) -> Tensor:
        """The input (..., width) that stands for codes (...) of a stage and their gains (...)."""
        vectors = self.code_vectors(stage)[codes] / self.unit
        head = self.gain_head
        if head is None or gains is None:
            return self.embedding(codes, vectors)
        z = head.standardise(head.values(gains, stage), stage).clamp(-FURTHEST, FURTHEST)[..., None]
        mean, deviation = head.mean[stage], head.deviation[stage]
        g = (mean + deviation * z) / (mean.square() + deviation.square()).sqrt()
        return self.embedding(codes, g * vectors, z)

    def embed_label(self, label: Tensor | None, n: int) -> Tensor | None:
        """The vectors (n, width) of labels (n,); None for an unconditional prior."""
        if self.label_embedding is None or self.classes is None:
            return None
        device = self.vectors.device
        if label is None:
            return self.label_embedding(torch.full((n,), self.classes, device=device))
        if self.training and self.label_dropout:
            label = label.masked_fill(torch.rand(n, device=device) < self.label_dropout, self.classes)
        return self.label_embedding(label)


class TokenEmbedding(nn.Module):
    """E[k] + A (g v_k) + f(g) of codes (...), vectors g v_k (..., C), and gains (..., 1) in standard units."""

    def __init__(self, space: TokenSpace, width: int) -> None:
        super().__init__()
        self.code = nn.Embedding(space.codebook_size, width)
        self.vector = nn.Linear(space.dim, width)
        self.gain = nn.Sequential(nn.Linear(1, GAIN_FEATURES), nn.GELU(), nn.Linear(GAIN_FEATURES, width))
        if space.gain == "none":
            self.gain = nn.Sequential()
        nn.init.normal_(self.code.weight, std=0.1)

    def forward(self, codes: Tensor, vectors: Tensor, gains: Tensor | None = None) -> Tensor:
        x = self.code(codes) + self.vector(vectors)
        return x if gains is None else x + self.gain(gains)


class CodeOutput(nn.Module):
    """w_k h + b_k + <U h, v_k> of contexts h (..., width) and vectors (K, C), as logits (..., K); b for each stage."""

    def __init__(self, space: TokenSpace, width: int) -> None:
        super().__init__()
        self.free = nn.Linear(width, space.codebook_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(space.stages, space.codebook_size))
        self.vector = nn.Linear(width, space.dim, bias=False)
        nn.init.normal_(self.free.weight, std=SMALL)
        nn.init.normal_(self.vector.weight, std=SMALL / space.dim**0.5)

    def forward(self, context: Tensor, vectors: Tensor, stage: int) -> Tensor:
        return F.linear(context, self.free.weight, self.bias[stage]) + self.vector(context) @ vectors.t()


class GainOutput(nn.Module):
    """W gelu(B h + E'[k] + C v_k) + b of contexts h (..., width), codes (...) and their vectors (..., C); b a stage."""

    def __init__(self, space: TokenSpace, width: int, start: Tensor) -> None:
        super().__init__()
        self.context = nn.Linear(width, width)
        self.code = nn.Embedding(space.codebook_size, width)
        self.vector = nn.Linear(space.dim, width, bias=False)
        self.output = nn.Linear(width, len(start), bias=False)
        self.bias = nn.Parameter(start.repeat(space.stages, 1))
        nn.init.normal_(self.code.weight, std=0.1)
        nn.init.normal_(self.output.weight, std=SMALL)

    def forward(self, context: Tensor, codes: Tensor, vectors: Tensor, stage: int) -> Tensor:
        hidden = F.gelu(self.context(context) + self.code(codes) + self.vector(vectors))
        return self.output(hidden) + self.bias[stage]


def decay_groups(prior: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters of a prior in groups for an optimizer: those that `decays` names, and those that do not decay."""
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in prior.named_parameters():
        groups[decays(name, parameter)].append(parameter)
    return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay acts on a parameter: on matrices, kernels and embeddings, each named `weight` by its layer.

    Not on those of norms, which are vectors, on biases, which may be tables of a row for each stage, nor on what is
    added for places, which a prior names itself.
    """
    return name.endswith(".weight") and parameter.ndim > 1
