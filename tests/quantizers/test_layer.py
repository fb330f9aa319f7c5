"""Quantizers as layers of anybody's model: layouts, precisions, masks, freezing, checkpointing, empty batches."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hybridvq import ConfigError, DataError, ShapeError
from hybridvq.data.photos import load_photograph
from hybridvq.quantizers import VectorQuantizer, build_quantizer
from replicas import in_two

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


# ---- layouts


@every_layer
@pytest.mark.parametrize("positions", [(8, 8), (64,), (2, 4, 8)])
@pytest.mark.parametrize("channel_last", [False, True])
def test_every_layout_is_the_same_layer(name, positions, channel_last):
    """One image each, so that noise too is the same: training, its state, evaluation and tokens."""
    expected, layer = build(name), build(name, channel_last=channel_last)
    for seed in range(3):
        z = maps(seed, batch=1)
        laid = z.reshape(1, DIM, *positions)
        out, other = expected(z), layer(laid.movedim(1, -1) if channel_last else laid)
        z_hat = other.z_hat.movedim(-1, 1) if channel_last else other.z_hat
        assert z_hat.shape == laid.shape
        torch.testing.assert_close(z_hat.reshape(z.shape), out.z_hat)
        for part, its in out.tokens.parts.items():
            found = getattr(other.tokens, part)
            assert found.shape == (1, its.shape[1], *positions)
            torch.testing.assert_close(found.reshape(its.shape), its)
        for term, value in out.losses.items():
            torch.testing.assert_close(other.losses[term], value)
        torch.testing.assert_close(other.error, out.error)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value)
    layer.eval()
    out = layer(laid.movedim(1, -1) if channel_last else laid)
    torch.testing.assert_close(layer.dequantize(out.tokens), out.z_hat)


@every_layer
@pytest.mark.parametrize("channel_last", [False, True])
def test_vectors_without_positions(name, channel_last):
    layer = trained(name, channel_last=channel_last).eval()
    rows = maps(7).movedim(1, -1).reshape(-1, DIM)
    out = layer(rows)
    assert out.z_hat.shape == rows.shape
    assert {part.ndim for part in out.tokens.parts.values()} == {2}
    torch.testing.assert_close(layer.dequantize(out.tokens), out.z_hat)
    layer.channel_last = False
    whole = layer(rows.view(2, 8, 8, DIM).movedim(-1, 1)).z_hat
    torch.testing.assert_close(out.z_hat, whole.movedim(1, -1).reshape(-1, DIM))


def test_gradients_keep_the_layout():
    z = torch.randn(2, 5, DIM, requires_grad=True)
    out = build("identity", channel_last=True, code_dim=None)(z)
    v = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(out.z_hat, z, v)[0], v)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (6,), r"z has shape \(6,\); this quantizer takes \(batch, 6, ...\)"),
        ({}, (2, 5, 6), r"\(2, 5, 6\); this quantizer takes \(batch, 6, ...\)"),
        ({"channel_last": True}, (2, 6, 5), r"\(2, 6, 5\); this quantizer takes \(batch, ..., 6\)"),
    ],
)
def test_wrong_layouts_are_named(options, shape, message):
    with pytest.raises(ShapeError, match=message):
        build("vector", **options)(torch.zeros(shape))


def test_the_hybrid_quantizer_takes_images_alone():
    with pytest.raises(ShapeError, match=r"\(2, 6, 5\); this quantizer takes \(batch, 6, height, width\)"):
        build("hybrid")(torch.zeros(2, 6, 5))
    with pytest.raises(ConfigError, match="HybridQuantizer takes whole images, so it has no mask"):
        build("hybrid")(maps(), mask=torch.ones(2, 8, 8, dtype=torch.bool))


# ---- precision


@every
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_cast_modules_compute_in_float32(name, kind):
    layer, expected = build(name).to(kind), build(name)
    for seed in range(3):
        z = maps(seed).to(kind).requires_grad_()
        out, other = layer(z), expected(z.float())
        assert out.z_hat.dtype == kind
        torch.testing.assert_close(out.z_hat, other.z_hat.to(kind))
        assert {loss.dtype for loss in out.losses.values()} <= {torch.float32}
        total(out).backward()
        assert z.grad.dtype == kind
    assert_same(expected.state_dict(), layer.state_dict())
    layer.eval()
    z_hat = layer(z).z_hat
    again = layer.dequantize(layer(z).tokens)
    assert z_hat.dtype == again.dtype == kind
    torch.testing.assert_close(again.float(), z_hat.float())
    assert layer.float().dequantize(layer(z).tokens).dtype == torch.float32


def test_a_model_around_it_casts_it_too():
    model = nn.ModuleList([nn.Conv2d(3, DIM, 1), build("gain-shape"), nn.Conv2d(DIM, 3, 1)]).bfloat16()
    x = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    out = model[1](model[0](x))
    model[2](out.z_hat).sum().backward()
    assert model[2](model[1].dequantize(out.tokens)).dtype == torch.bfloat16
    assert model[1].directions.weight.dtype == torch.float32


# ---- masks


@every_layer
@pytest.mark.parametrize("channel_last", [False, True])
def test_masked_positions_count_nowhere(name, channel_last):
    """A batch with padding does what its valid vectors alone do, whatever the padding holds."""
    masked, alone = build(name, channel_last=channel_last), build(name)
    mask = torch.rand(2, 40, generator=torch.Generator().manual_seed(5)) < 0.4
    for seed in range(5):
        z = maps(seed, size=(40,))
        valid = z.movedim(1, -1)[mask].t()[None]
        z = torch.where(mask[:, None], z, 1e4 * torch.randn(z.shape)).requires_grad_()
        out, other = masked(z.movedim(1, -1) if channel_last else z, mask=mask), alone(valid)
        z_hat = out.z_hat if channel_last else out.z_hat.movedim(1, -1)
        torch.testing.assert_close(z_hat[mask], other.z_hat[0].t())
        assert not z_hat[~mask].any()
        for part, its in other.tokens.parts.items():
            found = getattr(out.tokens, part).movedim(1, -1)
            torch.testing.assert_close(found[mask], its[0].t())
            assert not found[~mask].any()
        for term, value in other.losses.items():
            torch.testing.assert_close(out.losses[term], value)
        torch.testing.assert_close(out.error, other.error)
        (gradient,) = torch.autograd.grad(total(out), z)
        assert gradient.movedim(1, -1)[mask].any()
        assert not gradient.movedim(1, -1)[~mask].any()
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(masked.state_dict()[key], value)
    masked.eval()
    out = masked(z.movedim(1, -1) if channel_last else z, mask=mask)
    torch.testing.assert_close(masked.dequantize(out.tokens, mask), out.z_hat)


def test_padding_may_hold_anything():
    quantizer, z, mask = trained("vector").eval(), maps(), torch.ones(2, 8, 8, dtype=torch.bool)
    z[:, :, 5:], mask[:, 5:] = torch.nan, False
    assert quantizer(z, mask=mask).z_hat.isfinite().all()
    with pytest.raises(DataError, match="NaN"):
        quantizer(z)


@pytest.mark.parametrize("mask", [torch.ones(2, 8), torch.ones(2, 7, dtype=torch.bool)])
def test_wrong_masks_are_named(mask):
    with pytest.raises(ShapeError, match=r"mask is (float32|bool) of shape .*; give bool of shape \(2, 8\)"):
        build("vector")(torch.zeros(2, DIM, 8), mask=mask)


# ---- freezing


@every
@pytest.mark.parametrize("way", ["freeze", "requires_grad_", "around"])
def test_frozen_layers_stand_still(name, way):
    layer = trained(name)
    if way == "around" and not list(layer.parameters()):
        pytest.skip("a model around it reaches parameters alone")
    around = nn.ModuleList([layer]).train()
    {"freeze": layer.freeze, "requires_grad_": lambda: layer.requires_grad_(False)}.get(
        way, lambda: around.requires_grad_(False)
    )()
    before = state_of(layer)
    for seed in range(5):
        around.train()
        layer(maps(seed))
    assert_same(before, layer.state_dict())
    assert all(module.training for module in around.modules())
    torch.testing.assert_close(layer(maps(9)).z_hat, layer.eval()(maps(9)).z_hat)
    around.train()
    layer.unfreeze() if way == "freeze" else around.requires_grad_(True) and layer.requires_grad_(True)
    layer(maps())
    if layer.state_dict() and name not in ("identity", "fsq"):
        assert any(not torch.equal(value, layer.state_dict()[key]) for key, value in before.items())


def test_modes_that_others_set():
    """Lightning restores `training` of each module by itself after it measured."""
    layer = trained("vector normalized").eval()
    for module in layer.modules():
        module.training = True
    before = state_of(layer)
    layer(maps())
    assert layer.codebook.steps == before["codebook.steps"] + 1


def test_gradients_pass_a_frozen_layer():
    layer, z = trained("vector", code_dim=None).freeze(), maps(4).requires_grad_()
    v = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(layer(z).z_hat, z, v)[0], v)
    assert not layer.codebook.weight.requires_grad


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
