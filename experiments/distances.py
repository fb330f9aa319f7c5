"""How far apart two sets of images are, by their features: pure functions of features (N, F) and (M, F).

They are of the features of a classifier trained here. None of them is the FID, the KID or the precision and recall that
papers print, which are of other networks' features; they compare with one another alone.
"""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""||mu_a - mu_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): that of Gaussians with the sets' means and covariances.

    Source: Heusel et al. 2017, arXiv:1706.08500, on other features.
    """
    a, b = a.double(), b.double()
    first, second = torch.cov(a.t()), torch.cov(b.t())
    root = square_root(first)
    # The eigenvalues of C_a C_b are those of C_a^(1/2) C_b C_a^(1/2), which is symmetric.
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * cross)


def square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.t()


def kernel_distance(a: Tensor, b: Tensor) -> float:
    r"""The squared maximum mean discrepancy with k(x, y) = (<x, y> / F + 1)^3, estimated without bias.

    Source: Binkowski et al. 2018, arXiv:1801.01401, on other features.
    """
    a, b = a.double(), b.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.t() / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        every = kernel(x, x)
        return (every.sum() - every.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def precision_and_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """The shares of made images among the real ones, and of real images among the made ones.

    An image is among a set if it is no further from one of them than that one is from its k-th nearest of the set.
    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, on other features.
    """

    def share(points: Tensor, others: Tensor) -> float:
        radii = torch.cdist(others, others).kthvalue(k + 1, 1).values  # the nearest of all is the image itself
        return float((torch.cdist(points, others) <= radii).any(1).double().mean())

    real, made = real.double(), made.double()
    return share(made, real), share(real, made)


def nearest(features: Tensor, others: Tensor) -> Tensor:
    """The number of the nearest of the others, for each row."""
    return torch.cat([torch.cdist(part, others).argmin(1) for part in features.split(64)])
