"""The methods in numpy, written from the papers' formulas with loops and no broadcasting tricks."""

import numpy as np


def nearest(z, codes):
    """argmin_j ||z - e_j||^2 for each row of z."""
    return np.array([int(np.argmin([np.sum((row - e) ** 2) for e in codes])) for row in z])


def project(z, e):
    """P(z, e) = (<z, e> / <e, e>) e for one pair of vectors."""
    return float(np.dot(z, e)) / float(np.dot(e, e)) * e


def vq_losses(z, e, beta):
    """(codebook, commitment): means over elements."""
    error = np.mean((z - e) ** 2)
    return error, beta * error


def rows(x):
    """(B, D, h, w) tensor to (B h w, D) float64 rows, in reading order."""
    array = x.detach().double().numpy()
    return np.stack(
        [array[b, :, i, j] for b in range(array.shape[0]) for i in range(array.shape[2]) for j in range(array.shape[3])]
    )
