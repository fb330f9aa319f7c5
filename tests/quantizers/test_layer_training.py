"""Training a quantizer as a layer: checkpointing, empty batches, codes that grow or restart, several processes."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from layers import ALL, DIM, assert_same, build, every, maps, state_of, total, trained
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hybridvq.data.photos import load_photograph
from hybridvq.quantizers import VectorQuantizer
from replicas import in_two

# ---- activation checkpointing


def step(layer, encoder, batches, way):
    """The gradients of a training step on several batches at once, checkpointed or not."""

    def run(x):
        out = layer(encoder(x))
        return total(out), *(part for part in out.tokens.parts.values())

    for parameter in [*layer.parameters(), *encoder.parameters()]:
        parameter.grad = None
    results = [run(x) if way is None else checkpoint(run, x, use_reentrant=way) for x in batches]
    sum(loss for loss, *_ in results).backward()
    return results, [p.grad for p in [*layer.parameters(), *encoder.parameters()]]


@every
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_nothing(name, reentrant):
    """Starts, restarts and noise among them, and two calls before one backward pass."""
    torch.manual_seed(2)
    encoder = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, DIM, 1))
    plain, other = (encoder, build(name)), (copy.deepcopy(encoder), build(name))
    for number in range(4):
        x = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(number)).requires_grad_()
        expected, gradients = step(plain[1], plain[0], x, None)
        found, others = step(other[1], other[0], x, reentrant)
        for result, again in zip(expected, found, strict=True):
            assert all(map(torch.equal, result, again))
        assert_same(plain[1].state_dict(), other[1].state_dict())
        for gradient, its in zip(gradients, others, strict=True):
            assert (gradient is None) == (its is None)
            if gradient is not None:
                torch.testing.assert_close(its, gradient, rtol=1e-5, atol=1e-6)


# ---- empty batches


@every
@pytest.mark.parametrize("first", [False, True])
def test_an_empty_batch_changes_nothing(name, first):
    layer = build(name) if first else trained(name)
    before = state_of(layer)
    shapes = [(0, DIM, 8, 8)] if name == "hybrid" else [(0, DIM, 8, 8), (0, DIM), (2, DIM, 0), (2, DIM, 3, 0)]
    for shape in shapes:
        z = torch.zeros(shape, requires_grad=True)
        out = layer(z)
        assert out.z_hat.shape == z.shape
        assert all(part.numel() == 0 for part in out.tokens.parts.values())
        assert all(loss == 0 for loss in out.losses.values())
        assert out.error == 0
        (out.z_hat.sum() + sum(out.losses.values())).backward()
        assert_same(before, layer.state_dict())
        assert layer.dequantize(layer.eval()(z).tokens).shape == z.shape
        layer.train()
    if name != "hybrid":
        out = layer(maps(), mask=torch.zeros(2, 8, 8, dtype=torch.bool))
        assert not out.z_hat.any()
        assert_same(before, layer.state_dict())
    for parameter in layer.parameters():
        assert parameter.grad is None or not parameter.grad.any()
    layer(maps(8))
    assert all(value.isfinite().all() for value in layer.state_dict().values())


# ---- more codes than the first batch has vectors


@pytest.mark.parametrize("name", ["vector", "vector normalized", "gain-shape", "gain-shape rate"])
@pytest.mark.parametrize("restart_every", [0, 2])
def test_codes_grow_over_the_first_batches(name, restart_every):
    layer = build(name, codebook_size=20, restart_every=restart_every)
    vectors = layer.codebook if "vector" in name else layer.directions
    for number, found in enumerate([8, 16, 20, 20]):
        z = maps(number, size=(2, 2))
        if number == 0:
            with pytest.warns(UserWarning, match="codebook_size is 20, .* holds only 8 encoder vectors"):
                layer(z)
        else:
            layer(z)
        assert len(vectors.weight.detach().unique(dim=0)) >= found
        assert bool(vectors.initialised) == (number >= 2)
    assert (vectors.recent_counts >= 0).all()


def test_a_restart_does_not_throw_a_plain_loop():
    """Codes by gradient lag behind an encoder that outgrows them, and no one clears the moments of Adam."""
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1))
    decoder = nn.Sequential(nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1))
    layer = VectorQuantizer(32, codebook_size=64)
    optimizer = torch.optim.Adam(nn.ModuleList([encoder, layer, decoder]).parameters(), lr=1e-3)
    photo = torch.tensor(load_photograph("astronaut")).movedim(-1, 0) / 127.5 - 1
    corners, errors, restarts = torch.randint(480, (120, 16, 2)).tolist(), [], []
    for number in range(120):
        x = torch.stack([photo[:, top : top + 32, left : left + 32] for top, left in corners[number]])
        out = layer(encoder(x))
        error = F.mse_loss(decoder(out.z_hat), x)
        optimizer.zero_grad()
        (error + sum(out.losses.values())).backward()
        optimizer.step()
        errors.append(error.item())
        if layer.codebook.restarted is not None:
            restarts.append(number)
    assert restarts
    for number in restarts:
        assert max(errors[number : number + 20]) < 3 * sum(errors[number - 10 : number]) / 10


# ---- several processes


def train_shares(layer, rank, world_size):
    """Five steps on parts of 5 and 3 images, one of them on parts of 8 and none."""
    for seed in range(5):
        cut = 8 if seed == 2 else 5
        z = maps(seed, batch=8, size=(4, 4))
        own = z if world_size == 1 else z.split([cut, 8 - cut])[rank]
        out = layer(own.requires_grad_())
        (out.z_hat.square().sum() + sum(out.losses.values())).backward()
    return state_of(layer)


def share(rank, folder):
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    states = {name: train_shares(build(name), rank, 2) for name in ALL}
    apart = build("gain-shape", sync=False)
    for seed in range(1 + rank):
        apart(maps(seed, batch=1 + rank))
    torch.save((states, state_of(apart)), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_unequal_parts_train_as_one(tmp_path):
    assert in_two(share, tmp_path) == [0, 0]
    (first, apart), (second, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in ALL:
        assert_same(first[name], second[name])
        for key, value in train_shares(build(name), 0, 1).items():
            torch.testing.assert_close(first[name][key], value, rtol=1e-4, atol=1e-4)
    for rank, state in enumerate((apart, other)):
        alone = build("gain-shape")
        for seed in range(1 + rank):
            alone(maps(seed, batch=1 + rank))
        assert_same(alone.state_dict(), state)
