import math

import numpy as np
import pytest
import reference
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from hybridvq import ConfigError, ShapeError
from hybridvq.metrics import entropy_bits
from hybridvq.quantizers import GainShapeQuantizer, Quantizer, Tokens
from hybridvq.quantizers.base import nearest_direction, rotate


def batch(seed=0, dim=5, positions=8):
    return torch.randn(2, dim, positions, positions, generator=torch.Generator().manual_seed(seed))


def trained(steps=3, **options):
    torch.manual_seed(0)
    quantizer = GainShapeQuantizer(5, **({"codebook_size": 16, "levels": 8} | options)).train()
    for step in range(steps):
        quantizer(batch(step))
    return quantizer.eval()


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("levels", [None, 8])
def test_pursuit_matches_the_formulas(stages, levels):
    quantizer = trained(stages=stages, levels=levels)
    z = batch(9)
    out = quantizer(z)
    directions = quantizer.directions.weight.double().numpy()
    expected = []
    for row in reference.rows(z):
        residual, z_hat = row.copy(), np.zeros_like(row)
        for s in range(stages):
            k = int(np.argmax([np.dot(residual, c) for c in directions]))
            gain = np.dot(residual, directions[k])
            if levels:
                values = quantizer.gain_levels[s].values.double().numpy()
                gain = values[np.argmin(np.abs(values - gain))]
            z_hat, residual = z_hat + gain * directions[k], residual - gain * directions[k]
        expected.append(z_hat)
    np.testing.assert_allclose(reference.rows(out.z_hat), np.stack(expected), rtol=1e-4, atol=1e-5)
    loss = 0.25 * np.mean((reference.rows(z) - np.stack(expected)) ** 2)
    assert out.losses["commitment"].item() == pytest.approx(loss, rel=1e-4)
    assert out.error.item() == pytest.approx(loss / 0.25, rel=1e-4)


def test_directions_have_unit_length_and_start_from_data():
    torch.manual_seed(0)
    axes = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    rows = axes.repeat(32, 1) * torch.rand(96, 1).add(0.5) + 0.01 * torch.randn(96, 3)
    quantizer = GainShapeQuantizer(3, codebook_size=3, levels=None, restart_every=1)
    for _ in range(5):
        quantizer(rows.T.reshape(1, 3, 8, 12))
    weight = quantizer.directions.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3))
    assert (weight @ axes.T).max(0).values.min() > 0.999


def test_a_direction_turns_to_the_leading_eigenvector():
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(512, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.3]) + torch.tensor([2.0, 1.0, 0.0])
    quantizer = GainShapeQuantizer(3, codebook_size=1, levels=None, decay=0.5)
    for _ in range(60):
        quantizer(rows.T.reshape(1, 3, 16, 32))
    leading = np.linalg.eigh((rows.T @ rows).double().numpy())[1][:, -1]
    assert abs(np.dot(leading, quantizer.directions.weight[0].double().numpy())) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("levels", "stages"), [(None, 1), (8, 1), (8, 2)])
def test_tokens_are_enough(levels, stages):
    quantizer = trained(levels=levels, stages=stages, code_dim=3)
    out = quantizer(batch(7))
    assert out.tokens.codes.shape == out.tokens.gains.shape == (2, stages, 8, 8)
    assert out.tokens.gains.is_floating_point() == (levels is None)
    assert out.tokens.float_bits() == (32 * stages if levels is None else 0)
    again = quantizer.dequantize(Tokens(codes=out.tokens.codes.clone(), gains=out.tokens.gains.clone()))
    torch.testing.assert_close(again, out.z_hat, rtol=1e-5, atol=1e-5)


def test_gradient_is_straight_through():
    quantizer = trained()
    z = batch(3).requires_grad_()
    v = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(quantizer(z).z_hat, z, v)[0], v)


def test_rotation_by_hand():
    """z = (2, 0) onto value (0, 3): R turns by 90 degrees, lambda = 3/2, so (d/dz)^T v = 1.5 R^T v."""
    z = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    value = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    out = rotate(z, value)
    assert torch.equal(out, value)
    (gradient,) = torch.autograd.grad(out, z, torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), retain_graph=True)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([1.5, 0.0]))
    (gradient,) = torch.autograd.grad(out, z, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.0, -1.5]))


def test_float_gains_until_quantization_begins():
    torch.manual_seed(0)
    quantizer = GainShapeQuantizer(5, codebook_size=16, levels=2, quantize_from=3).train()
    distinct = [quantizer(batch(0)).z_hat.norm(dim=1).unique().numel() for _ in range(4)]
    assert min(distinct[:2]) > 60
    assert distinct[3] < 60
    assert quantizer.eval()(batch(0)).tokens.gains.max() == 1


def test_nearest_direction_is_exact_across_slabs():
    generator = torch.Generator().manual_seed(3)
    directions = F.normalize(torch.randn(4096, 4, generator=generator), dim=1)
    z = torch.randn(300, 4, generator=generator)
    expected = (z.double() @ directions.double().T).argmax(1)
    assert torch.equal(nearest_direction(z, directions), expected)


def test_dead_directions_restart():
    quantizer = trained(restart_every=2).train()
    quantizer.directions.weight.copy_(quantizer.directions.weight[:1].expand(16, 5))
    quantizer.directions.ema_sums.copy_(quantizer.directions.weight)
    for step in range(8):
        quantizer(batch(step))
    assert len(quantizer.eval()(batch(0)).tokens.codes.unique()) > 12


def replica(rank, folder, options):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(seven_steps(options, slice(rank, rank + 1)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def seven_steps(options, share):
    torch.manual_seed(0)
    quantizer = GainShapeQuantizer(5, codebook_size=24, levels=4, restart_every=2, **options).train()
    for step in range(7):
        quantizer(batch(step)[share])
    return quantizer.state_dict()


@pytest.mark.parametrize("options", [{"stages": 2}, {"normalize": True, "rate_weight": 0.1}])
def test_two_processes_hold_the_codebook_of_one(options, tmp_path):
    mp.spawn(replica, (str(tmp_path), options), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    for key, value in seven_steps(options, slice(None)).items():
        torch.testing.assert_close(value, first[key], rtol=1e-3, atol=1e-3, msg=key)


@pytest.mark.parametrize("stages", [1, 2])
def test_choosing_by_rate_matches_the_formula(stages):
    quantizer = trained(rate_weight=0.3, stages=stages, steps=20)
    out = quantizer(batch(9))
    directions = quantizer.directions.weight.double().numpy()
    for n, row in enumerate(reference.rows(batch(9))[:40]):
        residual = row.copy()
        for s in range(stages):
            values = quantizer.gain_levels[s].values.double().numpy()
            shares = quantizer.pair_shares[s].shares.double().numpy()
            cost = {
                (k, level): np.sum((residual - values[level] * directions[k]) ** 2) - 0.3 * np.log2(shares[k, level])
                for k in range(16)
                for level in range(8)
                if shares[k, level] > 1e-5
            }
            b, i, j = np.unravel_index(n, (2, 8, 8))
            chosen = out.tokens.codes[b, s, i, j].item(), out.tokens.gains[b, s, i, j].item()
            assert cost[chosen] <= min(cost.values()) + 1e-4
            residual -= values[chosen[1]] * directions[chosen[0]]


def test_a_rate_weight_saves_bits_and_costs_error():
    def measured(rate_weight):
        quantizer = trained(rate_weight=rate_weight, steps=60)
        out = quantizer(batch(99, positions=64))
        symbols = (out.tokens.codes * 8 + out.tokens.gains).flatten()
        return entropy_bits(torch.bincount(symbols)), out.error.item()

    (bits, error), (fewer, larger) = measured(0.0), measured(0.3)
    assert fewer < bits - 0.5
    assert error < larger < 2 * error


def test_a_training_step_gives_restarted_directions_an_even_share():
    quantizer = trained(rate_weight=0.3, restart_every=2, steps=20).train()
    quantizer.directions.recent_counts[3] = 0
    shares = quantizer.pair_shares[0].shares
    shares[3] = 0
    quantizer(batch(1))
    assert quantizer.directions.restarted[3]
    assert (shares[3] >= 0.99 / 128).all()


@pytest.mark.parametrize("options", [{}, {"rate_weight": 0.3}])
@pytest.mark.parametrize("stages", [1, 3])
def test_every_step_leaves_the_levels_in_order(options, stages):
    """Fast levels, restarts and gains whose scale jumps make them overtake one another."""
    torch.manual_seed(0)
    quantizer = GainShapeQuantizer(5, 16, levels=8, stages=stages, restart_every=2, decay=0.5, **options).train()
    for step in range(20):
        quantizer(batch(step) * 10 ** (step % 3))
        for levels in quantizer.gain_levels:
            assert (levels.values.diff() >= 0).all()


def test_a_model_whose_levels_are_out_of_order_is_sorted_by_its_next_step():
    """Levels, counts and shares move together: the step is that of the model in order."""
    ordered, shuffled = (trained(rate_weight=0.3, steps=20, restart_every=0).train() for _ in range(2))
    order = torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
    state = shuffled.state_dict()
    for key in ("gain_levels.0.values", "gain_levels.0.counts", "gain_levels.0.sums", "pair_shares.0.shares"):
        state[key] = state[key][..., order]
    shuffled.load_state_dict(state)
    tokens, others = ordered(batch(30)).tokens, shuffled(batch(30)).tokens
    assert torch.equal(tokens.codes, others.codes)
    assert torch.equal(tokens.gains, order[others.gains])
    for key, value in shuffled.state_dict().items():
        torch.testing.assert_close(value, ordered.state_dict()[key], msg=key)


def test_the_product_is_signed():
    """No direction comes closer at a gain of 0 or more; one that points the other way may, at a negative gain."""
    for seed in range(20):
        quantizer = trained(seed % 4, levels=None, codebook_size=1 + seed % 7)
        z = batch(seed, positions=3)
        errors = (z - quantizer(z).z_hat).square().sum(1).flatten()
        rows = torch.from_numpy(reference.rows(z)).float()
        products = (rows @ quantizer.directions.weight.T).clamp(min=0)
        others = rows.square().sum(1, keepdim=True) - products.square()
        assert (errors[:, None] <= others + 1e-4).all()
    quantizer = GainShapeQuantizer(2, codebook_size=2, levels=None).eval()
    quantizer.directions.weight.copy_(torch.eye(2))
    out = quantizer(torch.tensor([-1.0, -0.1]).view(1, 2, 1, 1))
    assert out.tokens.codes.item() == 1  # at -0.1, where the other direction would leave an error of 0.01 and not of 1


def test_vectors_of_zeros_leave_directions_of_unit_length():
    quantizer = GainShapeQuantizer(5, codebook_size=16, levels=4, restart_every=1).train()
    for _ in range(3):
        quantizer(torch.zeros(2, 5, 4, 4))
        torch.testing.assert_close(quantizer.directions.weight.norm(dim=1), torch.ones(16))


CODES = torch.zeros(1, 2, 2, 2, dtype=torch.long)


@pytest.mark.parametrize(
    ("levels", "tokens", "message"),
    [
        (8, Tokens(codes=CODES, gains=CODES - 1), "one of the gains is -1; they go from 0 to 7"),
        (8, Tokens(codes=CODES, gains=CODES + 8), "one of the gains is 8; they go from 0 to 7"),
        (8, Tokens(codes=CODES - 1, gains=CODES), "one of the codes is -1; they go from 0 to 15"),
        (8, Tokens(codes=CODES + 16, gains=CODES), "one of the codes is 16; they go from 0 to 15"),
        (8, Tokens(codes=CODES, gains=CODES.float()), "these gains are floats, and this model has levels"),
        (None, Tokens(codes=CODES, gains=CODES), "these gains are levels, and this model has floats"),
        (8, Tokens(codes=CODES, gains=CODES[:, :1]), r"the gains have shape \(1, 1, 2, 2\), and the codes"),
        (8, Tokens(codes=CODES.repeat(1, 2, 1, 1), gains=CODES), r"the codes have shape \(1, 4, 2, 2\)"),
    ],
)  # fmt: skip
def test_tokens_out_of_range_are_refused(levels, tokens, message):
    with pytest.raises((ConfigError, ShapeError), match=message):
        trained(levels=levels, stages=2).dequantize(tokens)


def test_the_check_of_tokens_compiles_away():
    quantizer = trained(stages=2)
    tokens = quantizer(batch(3)).tokens

    def read(codes, gains):
        return quantizer.dequantize(Tokens(codes=codes, gains=gains))

    compiled = torch.compile(read, backend="eager", fullgraph=True)
    assert torch.equal(compiled(tokens.codes, tokens.gains), quantizer.dequantize(tokens))


def test_training_never_asks_what_tokens_hold(monkeypatch):
    """Looking would make a device wait at every step."""
    monkeypatch.delattr(Quantizer, "check")
    trained(rate_weight=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, "stages is 0"),
        ({"levels": 1}, "levels is 1"),
        ({"beta": -1}, "beta is -1"),
        ({"code_dim": 0}, "code_dim is 0"),
        ({"gradient": "none"}, "gradient is 'none'"),
        ({"rate_weight": -0.1}, "rate_weight is -0.1"),
        ({"rate_weight": 0.1, "levels": None}, "rate_weight is 0.1"),
        ({"rate_weight": 0.1, "quantize_from": 5}, "quantize_from is 5 and rate_weight is 0.1"),
        ({"rate_weight": 1e308}, "rate_weight is 1e[+]308"),
        ({"rate_weight": math.nan}, "rate_weight is nan"),
        ({"beta": math.nan}, "beta is nan"),
        ({"decay": 5}, "decay is 5"),
        ({"decay": 1}, "decay is 1"),
        ({"codebook_size": 2**40}, "codebook_size is 1099511627776"),
        ({"stages": 10**9}, "stages is 1000000000"),
        ({"levels": 2.5}, "levels is 2.5"),
        ({"levels": 2**40}, "levels is 1099511627776"),
        ({"quantize_from": -1}, "quantize_from is -1"),
        ({"restart_every": -1}, "restart_every is -1"),
        ({"code_dim": 2**40}, "code_dim is 1099511627776"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        GainShapeQuantizer(5, **options)
