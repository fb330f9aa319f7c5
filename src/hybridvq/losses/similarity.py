"""How alike the structures of two images are."""

import torch
from torch import Tensor, nn

from hybridvq.errors import ShapeError

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
WINDOW = 11  # pixels per side of the Gaussian


class MSSSIM(nn.Module):
    """1 - MS-SSIM, a mean over images, by torchmetrics: five scales for images of 176 pixels and more.

    Smaller images have fewer scales, of which the smallest is still 11 pixels per side: three at 64 pixels, two at 32.
    Their exponents are the first of the published ones, divided by their sum. Computed on [0, 1] and in float32.

    Source: Wang et al. 2003, "Multiscale structural similarity for image quality assessment".

    Raises:
        ShapeError: a side is below 11 pixels.
        MissingExtraError: torchmetrics is not installed.
    """

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        betas = BETAS[: scales(min(x.shape[2:]))]
        with torch.autocast(x.device.type, enabled=False):
            value = multiscale_structural_similarity_index_measure(
                (x_hat.float() + 1) / 2,
                (x.float() + 1) / 2,
                data_range=1.0,
                betas=tuple(beta / sum(betas) for beta in betas),
                normalize="relu",
            )
        return 1 - value


def scales(side: int) -> int:
    """How many scales images of `side` pixels have.

    Raises:
        ShapeError: none.
    """
    if side < WINDOW:
        raise ShapeError(
            f"ms-ssim compares images of {WINDOW} pixels per side and more, and these have {side}; leave it out"
        )
    count = len(BETAS)
    # Each scale halves the side; torchmetrics asks for more than that from three scales on.
    while count > 1 and (side >> (count - 1) < WINDOW or side // (count - 1) ** 2 < WINDOW):
        count -= 1
    return count
