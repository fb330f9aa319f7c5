"""What the benchmarks compare with is what they say it is."""

import torch
from benchmarks.speed.plain import PlainVQVAE
from benchmarks.timing import peak_memory_mib
from torch.nn import functional as F

from hybridvq import Tokenizer


def test_the_plain_network_is_the_published_one():
    """Same weights, same batch: the same reconstruction, losses and gradients."""
    torch.manual_seed(0)
    ours = Tokenizer(16, quantizer="vector", options={"codebook_size": 32, "beta": 1.0, "init": "uniform"}).train()
    plain = PlainVQVAE(16, codebook_size=32).train()
    with torch.no_grad():
        ours.quantizer.codebook.weight.mul_(30)
        for theirs, value in zip(plain.parameters(), ours.parameters(), strict=True):
            theirs.copy_(value)
    x = torch.rand(4, 3, 16, 16) * 2 - 1
    result, (x_hat, losses) = ours(x), plain(x)
    torch.testing.assert_close(x_hat, result.x_hat)
    torch.testing.assert_close(losses, sum(result.quantized.losses.values()))
    (F.mse_loss(result.x_hat, x) + sum(result.quantized.losses.values())).backward()
    (F.mse_loss(x_hat, x) + losses).backward()
    for theirs, value in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, value.grad, rtol=1e-3, atol=1e-6)


def allocate():
    return lambda: torch.ones(2**25).sum()


def test_peak_memory_is_that_of_a_process_of_its_own():
    """128 MiB of ones, whatever this process holds already."""
    assert 120 < peak_memory_mib(allocate) < 200
