"""VQ-VAE's quantizer."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError
from hybridvq.quantizers.base import Quantized, Quantizer, Tokens, flatten, mean_square, straight_through
from hybridvq.quantizers.codebook import Codebook
from hybridvq.quantizers.space import TokenSpace
from hybridvq.ranges import check_count, check_weight

LARGEST_HEADS = 2**8


class VectorQuantizer(Quantizer):
    r"""Replace each encoder vector by its nearest code.

        k     = argmin_j ||z - e_j||^2                 in {0, ..., K-1}
        z_hat = e_k

    With several heads z is cut into as many parts of equal length, each of which takes a code. With the cosine
    distance parts and codes are brought to length 1 first, and z_hat is made of unit vectors.

    With a rate weight lambda > 0 codes are chosen by what they cost as well as by what they miss, b_j = -log2 of the
    code's share of positions, so that tokens take fewer bits for some more error:

        k     = argmin_j ||z - e_j||^2 + lambda b_j

    Losses, means over elements: codebook ||sg[z] - e_k||^2 (none when the codes are moving averages) and
    commitment beta ||z - sg[e_k]||^2.
    Gradient: straight-through, d z_hat / d z = I.
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, S, h, w) int64, S the number of heads.
    Rate: S log2(K) bits per position before entropy coding.
    Sources: van den Oord, Vinyals, Kavukcuoglu 2017, arXiv:1711.00937, equation 3; for the cosine distance Yu et al.
    2022, arXiv:2110.04627, section 3.2; for the choice by rate Chou, Lookabaugh and Gray 1989.

    Args:
        dim: D.
        codebook_size: K.
        beta: weight of the commitment term.
        learn, init, restart_every, decay: how the codes are kept, see `Codebook`. As published: `init="uniform"`,
            `restart_every=0`.
        code_dim: dimension of what is quantized, between two 1x1 convolutions; None for D.
        normalize, channel_last, sync: see `Quantizer`.
        distance: `euclidean`, or `cosine`.
        heads: S, the number of codes per position, each for a part of z of equal length.
        share_codes: whether all heads take codes from one codebook, or each from its own.
        rate_weight: lambda, in squared units of z a bit.

    Raises:
        ConfigError: an option has no such value.
        ShapeError: z.shape[1] != D.
    """

    codebook_size: int

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        beta: float = 0.25,
        learn: Literal["gradient", "ema"] = "gradient",
        init: Literal["uniform", "kmeans"] = "kmeans",
        restart_every: int = 50,
        decay: float = 0.99,
        code_dim: int | None = None,
        normalize: bool = False,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        heads: int = 1,
        share_codes: bool = True,
        rate_weight: float = 0.0,
        channel_last: bool = False,
        sync: bool = True,
    ) -> None:
        super().__init__(dim, code_dim, normalize, channel_last, sync)
        check_weight("beta", beta)
        check_weight("rate_weight", rate_weight)
        check_count("heads", heads, 1, LARGEST_HEADS)
        if distance not in ("euclidean", "cosine"):
            raise ConfigError(f"distance is {distance!r}; use 'euclidean' or 'cosine'")
        if self.code_dim % heads:
            raise ConfigError(f"heads is {heads}, which does not divide the {self.code_dim} numbers of a vector")
        self.codebook_size, self.stages = codebook_size, heads
        self.beta, self.distance, self.share_codes = beta, distance, share_codes
        self.rate_weight = rate_weight
        kept = (learn, init, restart_every, decay, distance == "cosine", rate_weight)
        made = [Codebook(codebook_size, self.code_dim // heads, *kept) for _ in range(1 if share_codes else heads)]
        self.codebook, self.further_codebooks = made[0], nn.ModuleList(made[1:])  # of all heads, or one each

    def in_code_space(self, z: Tensor) -> Tensor:
        z = super().in_code_space(z)
        return z if self.distance == "euclidean" else F.normalize(self.parts(z), dim=2).flatten(1, 2)

    def moved(self) -> list[Tensor]:
        return [*super().moved(), *(book.weight for book in (self.codebook, *self.further_codebooks))]

    def quantize(self, z: Tensor) -> Quantized:
        codes, e, losses = self.lookup(z)
        return Quantized(straight_through(z, e), Tokens(codes=codes), losses)

    def read(self, tokens: Tokens) -> Tensor:
        return self.embed(tokens)

    def space(self) -> TokenSpace:
        vectors = self.codebook.vectors.detach()
        if self.stages > 1:  # each head's vectors in its own place among zeros, so that they add up
            rows = [codebook.vectors.detach() for codebook in self.codebooks]
            width = vectors.shape[1]
            padded = [F.pad(v, (s * width, self.code_dim - (s + 1) * width)) for s, v in enumerate(rows)]
            vectors = torch.stack(padded)
        return TokenSpace(self.codebook_size, self.stages, vectors=vectors)

    @property
    def codebooks(self) -> list[Codebook]:
        """The codebook of each head."""
        further = [codebook for codebook in self.further_codebooks if isinstance(codebook, Codebook)]
        return [self.codebook] * self.stages if self.share_codes else [self.codebook, *further]

    def parts(self, z: Tensor) -> Tensor:
        """(B, D, h, w) to (B, S, D / S, h, w)."""
        return z.unflatten(1, (self.stages, -1))

    def lookup(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Codes (B, S, h, w), their vectors (B, D, h, w), and VQ-VAE's two losses."""
        batch, _, height, width = z.shape
        heads = self.parts(z)
        if self.share_codes:
            codes = self.codebook.assign(flatten(heads.flatten(0, 1))).view(batch, self.stages, height, width)
        else:
            found = [book.assign(flatten(heads[:, s])) for s, book in enumerate(self.codebooks)]
            codes = torch.stack([k.view(batch, height, width) for k in found], 1)
        e = self.embed(Tokens(codes=codes))
        losses = {"commitment": self.beta * mean_square(z, e.detach())}
        if self.codebook.learn == "gradient":
            losses["codebook"] = mean_square(e, z.detach())
        return codes, e, losses

    def embed(self, tokens: Tokens) -> Tensor:
        """The code vectors (B, D, h, w) of tokens; zero for heads whose codes are left out."""
        assert tokens.codes is not None
        vectors = [book(codes) for book, codes in zip(self.codebooks, tokens.codes.unbind(1), strict=False)]
        e = torch.cat(vectors, -1).movedim(-1, 1)
        return F.pad(e, (0, 0, 0, 0, 0, self.code_dim - e.shape[1])) if e.shape[1] < self.code_dim else e
