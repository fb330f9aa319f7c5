import numpy as np
import pytest
import reference
import torch

from hybridvq import ConfigError, FrequencyQuantizer, VectorQuantizer


def pair(frequent, rare="vector", **options):
    """A frequency quantizer and a VQ-VAE quantizer that start from the same codes."""
    torch.manual_seed(0)
    common = {"codebook_size": 8, "init": "uniform", "restart_every": 0}
    frequency = FrequencyQuantizer(4, frequent, rare, **({"warmup_steps": 2} | common | options))
    vector = VectorQuantizer(4, **common)
    with torch.no_grad():
        frequency.codebook.weight.copy_(torch.randn(8, 4))
        vector.codebook.weight.copy_(frequency.codebook.weight)
    return frequency, vector


def batches(n=6):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, 5, 5, generator=generator) for _ in range(n)]


@pytest.mark.parametrize("rare", ["vector", "projected"])
def test_all_codes_frequent_is_exactly_vq_vae(rare):
    frequency, vector = pair(8, rare)
    for module in (frequency, vector):
        module.train()
    for z in batches():
        z.requires_grad_()
        ours, theirs = frequency(z), vector(z)
        assert torch.equal(ours.z_hat, theirs.z_hat)
        assert torch.equal(ours.tokens.codes, theirs.tokens.codes)
        assert {k: v.item() for k, v in ours.losses.items()} == {k: v.item() for k, v in theirs.losses.items()}
        gradients = [
            torch.autograd.grad(out.z_hat.square().sum() + sum(out.losses.values()), [z, q.codebook.weight])
            for out, q in ((ours, frequency), (theirs, vector))
        ]
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
        assert ours.tokens.float_bits() == 0


def test_warmup_is_exactly_vq_vae():
    frequency, vector = pair(3, warmup_steps=2)
    first, second, third = batches(3)
    for z in (first, second):
        assert torch.equal(frequency(z).z_hat, vector(z).z_hat)
    assert not torch.equal(frequency(third).z_hat, vector(third).z_hat)


@pytest.mark.parametrize("rare", ["vector", "projected"])
def test_rare_positions_stay_continuous(rare):
    frequency, _ = pair(3, rare)
    table = np.zeros(8)
    for z in batches():
        counts = np.bincount(
            reference.nearest(reference.rows(z), frequency.codebook.weight.detach().double().numpy()), minlength=8
        )
        table = 0.99 * table + 0.01 * counts / counts.sum()
        out = frequency(z)
    codes = frequency.codebook.weight.detach().double().numpy()
    rows = reference.rows(z)
    k = reference.nearest(rows, codes)
    frequent = set(np.argsort(-table, kind="stable")[:3].tolist())
    expected = np.stack(
        [
            codes[i] if i in frequent else (row if rare == "vector" else reference.project(row, codes[i]))
            for row, i in zip(rows, k, strict=True)
        ]
    )
    np.testing.assert_allclose(reference.rows(out.z_hat), expected, rtol=1e-5, atol=1e-6)
    share = np.mean([i not in frequent for i in k])
    assert 0 < share < 1
    assert out.tokens.float_bits() == pytest.approx(share * 32 * (4 if rare == "vector" else 1))
    torch.testing.assert_close(frequency.dequantize(out.tokens), out.z_hat)


def test_gradient_of_passed_positions_is_the_identity():
    frequency, _ = pair(0, warmup_steps=0)
    z = batches(1)[0].requires_grad_()
    out = frequency(z)
    assert torch.equal(out.z_hat, z)
    v = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(out.z_hat, z, v)[0], v)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequent": 9}, "frequent is 9"),
        ({"frequent": 2, "rare": "x"}, "rare is 'x'"),
        ({"frequent": 2, "table_decay": 5}, "table_decay is 5"),
        ({"frequent": 2, "warmup_steps": -1}, "warmup_steps is -1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        FrequencyQuantizer(4, codebook_size=8, **options)
