"""Every quantizer as a small layer, and what it is given."""

import pytest
import torch

from hybridvq.quantizers import build_quantizer

DIM = 6
SMALL = {"codebook_size": 8, "restart_every": 2}
LAYERS = {
    "vector": ("vector", SMALL | {"code_dim": 3}),
    "vector normalized": ("vector", SMALL | {"learn": "ema", "normalize": True}),
    "projected": ("projected", SMALL),
    "frequency": ("frequency", SMALL | {"frequent": 4, "warmup_steps": 1}),
    "frequency projected": ("frequency", SMALL | {"frequent": 4, "warmup_steps": 1, "rare": "projected"}),
    "vector cosine heads": ("vector", SMALL | {"distance": "cosine", "heads": 2, "share_codes": False}),
    "gain-shape": ("gain-shape", SMALL | {"levels": 4, "stages": 2, "normalize": True, "code_dim": 3}),
    "gain-shape rate": ("gain-shape", SMALL | {"levels": 4, "rate_weight": 0.1}),
    "gain-shape float": ("gain-shape", SMALL | {"levels": None, "gradient": "rotation"}),
    "fsq": ("fsq", {"grid": [4, 3]}),
    "gaussian": ("gaussian", {}),
    "identity": ("identity", {"code_dim": 3}),
}
HYBRID = {"hybrid": ("hybrid", {"groups": 2, "codebook_size": 8, "code_dim": 2, "width": 8, "aside_steps": 1})}
ALL = LAYERS | HYBRID
every_layer = pytest.mark.parametrize("name", LAYERS)
every = pytest.mark.parametrize("name", ALL)


def build(name, **options):
    torch.manual_seed(0)
    kind, others = ALL[name]
    return build_quantizer(DIM, kind, others | options).train()


def maps(seed=0, batch=2, size=(8, 8)):
    return torch.randn(batch, DIM, *size, generator=torch.Generator().manual_seed(seed)) + 0.3


def trained(name, steps=3, **options):
    quantizer = build(name, **options)
    for step in range(steps):
        z = maps(step)
        quantizer(z.movedim(1, -1) if options.get("channel_last") else z)
    return quantizer


def state_of(quantizer):
    return {key: value.clone() for key, value in quantizer.state_dict().items()}


def assert_same(state, other):
    assert state.keys() == other.keys()
    for key, value in state.items():
        assert torch.equal(value, other[key]), key


def total(out, weight=None):
    """A loss of everything that a quantizer gives."""
    loss = (out.z_hat.float() * torch.linspace(-1, 1, out.z_hat.numel()).view_as(out.z_hat)).sum()
    loss = loss + sum(out.losses.values())
    return loss if out.rate is None else loss + out.rate.bits.sum() + out.rate.aside_bits.sum()
