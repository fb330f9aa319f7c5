"""Quantizers as layers of anybody's model: layouts, precisions, masks, freezing."""

import pytest
import torch
from layers import DIM, assert_same, build, every, every_layer, maps, state_of, total, trained
from torch import nn

from hybridvq import ConfigError, DataError, ShapeError

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
