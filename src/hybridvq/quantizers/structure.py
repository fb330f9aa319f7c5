"""What codes on a coarse grid say of the vectors on a fine one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.quantizers.base import flatten, mean_square, straight_through
from hybridvq.quantizers.codebook import Codebook
from hybridvq.quantizers.levels import PairShares

COARSER = 4  # positions per side that one group of codes stands for
SHARE_DECAY = 0.995  # of the running shares that codes are counted by
LOG_SCALE_RANGE = (-5.0, 5.0)


@dataclass(frozen=True)
class Guess:
    """What codes say of z: its codes, mean and log scale (B, D, h, w), bits of each image's codes (B,), commitment."""

    codes: Tensor
    mean: Tensor
    log_scale: Tensor
    code_bits: Tensor
    commitment: Tensor


class StructureNetworks(nn.Module, ABC):
    """The networks between z and what a few numbers on a coarse grid say of it.

        z ──► encoder ──► y (B,N,h/4,w/4) ──► a few of its values ──► decoder ──► mean, log scale (B,D,h,w)

    Args:
        dim: D.
        width: channels of the networks.
        length: N.
    """

    def __init__(self, dim: int, width: int, length: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(dim, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(width, length, 1),
        )
        last = nn.Conv2d(width, 2 * dim, 3, padding=1)
        for parameter in last.parameters():  # mean 0 and scale 1 everywhere, to begin with
            nn.init.zeros_(parameter)
        self.decoder = nn.Sequential(
            nn.Conv2d(length, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.PixelShuffle(2),
            nn.GELU(),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.GELU(),
            last,
        )

    def forward(self, z: Tensor, mixed: bool) -> Guess:
        """What the codes of z (B, D, h, w) say of it; `mixed` lets the networks run in the precision of autocast."""
        height, width = z.shape[2:]
        padded = F.pad(z, (0, -width % COARSER, 0, -height % COARSER), mode="replicate")
        with torch.autocast(z.device.type, enabled=mixed):
            y = self.encoder(padded).float()
        codes, e, bits, commitment = self.reduce(y)
        with torch.autocast(z.device.type, enabled=mixed):
            mean, log_scale = self.predict(straight_through(y, e))
        mean, log_scale = mean[..., :height, :width].float(), log_scale[..., :height, :width].float()
        return Guess(codes, mean, log_scale, bits, commitment)

    @abstractmethod
    def reduce(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is kept of y (B, N, h, w): codes, the values they stand for, bits of each image (B,), commitment."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """The values (B, N, h, w) that codes (B, ., h, w) stand for."""

    def predict(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log scale (B, D, 4h, 4w) that code vectors (B, G d, h, w) stand for."""
        mean, log_scale = self.decoder(e).chunk(2, 1)
        return mean, log_scale.clamp(*LOG_SCALE_RANGE)

    def predict_mean(self, e: Tensor) -> Tensor:
        """The mean (B, D, 4h, 4w) alone, with three quarters of the work of `predict`."""
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        dim = last.out_channels // 2
        return F.conv2d(self.decoder[:-1](e), last.weight[:dim], last.bias[:dim], padding=last.padding)


class Structure(StructureNetworks):
    """The networks, and the code vectors between them, those of all groups side by side in y."""

    def __init__(self, dim: int, width: int, codebooks: list[Codebook]) -> None:
        super().__init__(dim, width, sum(codebook.weight.shape[1] for codebook in codebooks))
        self.codebooks = nn.ModuleList(codebooks)
        self.shares = nn.ModuleList(PairShares(len(codebook.weight), 1, SHARE_DECAY) for codebook in codebooks)

    def reduce(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes = self.assign(y)
        e = self.embed(codes)
        return codes, e, self.code_bits(codes), mean_square(y, e)

    def assign(self, y: Tensor) -> Tensor:
        """The codes (B, G, h, w) of y (B, G d, h, w); in training, also moves the code vectors and their shares."""
        codes = []
        for part, codebook, shares in zip(y.chunk(len(self.codebooks), 1), self.codebooks, self.shares, strict=True):
            assert isinstance(codebook, Codebook)
            assert isinstance(shares, PairShares)
            found = codebook.assign(flatten(part))
            if self.training:
                shares.observe(found)
            codes.append(found.view(len(y), *y.shape[2:]))
        return torch.stack(codes, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """The code vectors (B, G d, h, w) of codes (B, G, h, w)."""
        parts = [codebook(codes[:, group]) for group, codebook in enumerate(self.codebooks)]
        return torch.cat(parts, -1).movedim(-1, 1)

    def vectors(self, group: int) -> Tensor:
        """The code vectors (K, d) of a group."""
        codebook = self.codebooks[group]
        assert isinstance(codebook, Codebook)
        return codebook.weight.detach()

    def code_bits(self, codes: Tensor) -> Tensor:
        """The bits (B,) of each image's codes by their running shares."""
        parts = []
        for group, shares in enumerate(self.shares):
            assert isinstance(shares, PairShares)
            parts.append(shares.bits()[:, 0][codes[:, group]].sum((1, 2)))
        return torch.stack(parts).sum(0)
