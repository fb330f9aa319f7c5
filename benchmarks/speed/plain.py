"""The published VQ-VAE in plain PyTorch, as such code usually is: float32, contiguous, a full distance table."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 1),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PlainVQVAE(nn.Module):
    """The network and the losses of the `vector-published` recipe.

    x (B, 3, H, W) to x_hat and the sum of codebook and commitment loss.
    """

    def __init__(self, dim: int, codebook_size: int = 512) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, dim, 4, 2, 1),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 4, 2, 1),
            Residual(dim),
            Residual(dim),
        )
        self.codes = nn.Embedding(codebook_size, dim)
        nn.init.uniform_(self.codes.weight, -1 / codebook_size, 1 / codebook_size)
        self.decoder = nn.Sequential(
            Residual(dim),
            Residual(dim),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, 4, 2, 1),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x).permute(0, 2, 3, 1).contiguous()
        rows, codes = z.view(-1, z.shape[-1]), self.codes.weight
        distances = rows.pow(2).sum(1, keepdim=True) + codes.pow(2).sum(1) - 2 * rows @ codes.t()
        e = self.codes(distances.argmin(1)).view(z.shape)
        losses = F.mse_loss(e, z.detach()) + F.mse_loss(z, e.detach())
        z_hat = z + (e - z).detach()
        return self.decoder(z_hat.permute(0, 3, 1, 2).contiguous()), losses


def plain_step(dim: int, x: Tensor) -> Callable[[], None]:
    """One training step of it on x, ready to be called again and again."""
    model = PlainVQVAE(dim)
    optimizer = torch.optim.Adam(model.parameters(), 2e-4)

    def step() -> None:
        x_hat, losses = model(x)
        optimizer.zero_grad()
        (F.mse_loss(x_hat, x) + losses).backward()
        optimizer.step()

    return step
