import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hybridvq import GainShapeQuantizer, VectorQuantizer
from hybridvq.quantizers.normalize import UnitPower


def batch(seed=0):
    z = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return z * torch.tensor([3.0, 1.0, 0.1]).view(3, 1, 1) + 2


def test_the_first_batch_gets_unit_power():
    z = batch()
    rows = z.double().numpy()
    centered = rows - rows.mean((0, 2, 3), keepdims=True)
    expected = centered / np.sqrt((centered**2).mean())
    scaled = UnitPower(3)(z)
    np.testing.assert_allclose(scaled.numpy(), expected, rtol=1e-5, atol=1e-5)
    deviations = scaled.std((0, 2, 3))
    assert deviations[0] / deviations[1] == pytest.approx(3, rel=0.2)  # dimensions keep their proportions


def test_a_brighter_batch_keeps_its_brightness():
    """Values follow the running averages, by a reference of the recurrence, not the batch's own statistics."""
    power = UnitPower(3).train()
    mean, square = 0.0, 1.0
    for seed in range(4):
        z = batch(seed) * (1 + 0.3 * seed) + seed
        rows = z.double().numpy()
        own = rows.mean((0, 2, 3), keepdims=True)
        weight = 0.1 if seed else 1.0
        mean, square = mean + weight * (own - mean), square + weight * (((rows - own) ** 2).mean() - square)
        scaled = power(z)
        np.testing.assert_allclose(scaled.numpy(), (rows - mean) / np.sqrt(square), rtol=1e-4, atol=1e-4)
    assert scaled.mean() > 0.5


def test_evaluation_uses_what_training_saw():
    power = UnitPower(3).train()
    for seed in range(100):
        power(batch(seed))
    power.eval()
    before = {key: value.clone() for key, value in power.state_dict().items()}
    z = batch(1000)
    together, alone = power(z), power(z[:1])
    assert torch.equal(together[:1], alone)
    assert together.square().mean().item() == pytest.approx(1, abs=0.2)
    assert all(torch.equal(value, before[key]) for key, value in power.state_dict().items())


def test_the_scale_of_the_encoder_does_not_matter():
    errors = []
    for scale in (1, 1000):
        torch.manual_seed(0)
        quantizer = GainShapeQuantizer(3, codebook_size=8, levels=4, normalize=True).train()
        errors.append([quantizer(scale * batch(seed)).error.item() for seed in range(3)])
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def test_gradients_pass_through_the_statistics():
    """No gradient points towards scaling or shifting all of z, though the running averages are of other batches."""
    power = UnitPower(3)
    power(2 * batch(1) - 1)
    z = batch().requires_grad_()
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(power(z), z, v)
    torch.testing.assert_close(gradient.sum((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    centered = (z - z.mean((0, 2, 3), keepdim=True)).detach()
    assert (gradient * centered).sum().item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", [VectorQuantizer, GainShapeQuantizer])
def test_tokens_are_enough_when_normalized(kind):
    torch.manual_seed(0)
    quantizer = kind(3, codebook_size=8, normalize=True, code_dim=2).train()
    quantizer(batch())
    out = quantizer.eval()(batch(1))
    torch.testing.assert_close(quantizer.dequantize(out.tokens), out.z_hat)


def step(power, z):
    """The running averages after one step and the gradient of a loss over all of z."""
    z = z.clone().requires_grad_()
    loss = (power(z) * torch.arange(5.0)).pow(3).mean()
    return [*power.state_dict().values(), torch.autograd.grad(loss, z)[0]]


def replica(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(step(UnitPower(3).train(), batch().chunk(2)[rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_scale_like_one(tmp_path):
    mp.spawn(replica, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = step(UnitPower(3).train(), batch())
    for a, b, whole in zip(first[:3], second[:3], alone[:3], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, whole)
    # Each process has the gradient of its own mean loss; their average is the gradient of the whole batch.
    torch.testing.assert_close(torch.cat([first[3], second[3]]) / 2, alone[3], rtol=1e-4, atol=1e-6)
