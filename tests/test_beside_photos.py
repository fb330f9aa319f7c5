"""How the models beside `photos` begin."""

import torch
from experiments.beside_photos import project

from hybridvq import VectorQuantizer


def test_the_quantizer_begins_between_the_directions_of_most_variance():
    """z of rank 3 comes back whole from 3 numbers per position, and those have unit power."""
    draw = torch.Generator().manual_seed(0)
    mean, turn = torch.randn(12, generator=draw), torch.linalg.qr(torch.randn(12, 12, generator=draw)).Q
    z = torch.randn(500, 3, generator=draw) * torch.tensor([5.0, 3.0, 2.0]) @ turn[:3] + mean
    quantizer = VectorQuantizer(12, codebook_size=4, code_dim=3)
    project(quantizer, z)
    positions = z[:, :, None, None]
    inner = quantizer.to_code(positions)
    torch.testing.assert_close(quantizer.from_code(inner), positions, rtol=0, atol=1e-3)
    torch.testing.assert_close(inner.square().mean(), torch.tensor(1.0), rtol=0, atol=1e-3)


def test_of_more_directions_those_of_most_variance_are_kept():
    z = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 4.0, 0.1, 8.0])
    quantizer = VectorQuantizer(4, codebook_size=4, code_dim=2)
    project(quantizer, z)
    back = quantizer.from_code(quantizer.to_code(z[:, :, None, None]))[:, :, 0, 0]
    lost = (back - z).square().mean(0)
    assert lost[[1, 3]].max() < 0.1 < lost[0]
