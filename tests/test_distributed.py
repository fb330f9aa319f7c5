"""Two processes with half of each batch against one with the whole batch."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn

import tiny
from hybridvq.distributed import agree, all_gather, rank_and_size
from hybridvq.networks import BatchNorm2d
from hybridvq.quantizers import Tokens
from hybridvq.quantizers.gaussian import step_noise
from hybridvq.training.watch import Watch
from replicas import in_two
from runs import run

GAIN_SHAPE = {"codebook_size": 48, "restart_every": 4, "levels": 4}
VARIANTS = {
    "gain-shape float": GAIN_SHAPE | {"levels": None},
    "gain-shape stages": GAIN_SHAPE | {"stages": 2, "code_dim": 5},
    "gain-shape rate": GAIN_SHAPE | {"normalize": True, "beta": 0.0, "rate_weight": 0.1},
    "vector normalized": tiny.CODES | {"normalize": True, "code_dim": 5},
}
OPPONENT = {"mse": 1.0, "discriminator": {"weight": 0.1, "width": 8, "layers": 1, "start": 3}}
LOSSES = {"vector-ema discriminator": OPPONENT}
NAMES = [*tiny.MODELS, *tiny.COUNTING, *VARIANTS, *LOSSES]
SHORT = {"steps": 10, "eval_every": 4, "checkpoint_every": 5}


def recipe_of(name):
    if name in tiny.MODELS | tiny.COUNTING:
        return tiny.recipe(name, **SHORT)
    if name in LOSSES:
        return tiny.recipe(name.split()[0], **SHORT, loss=LOSSES[name])
    recipe = tiny.recipe(name.split()[0], **SHORT)
    recipe.model = replace(recipe.model, options=VARIANTS[name])
    return recipe


def train_all(rank, folder):
    for name in NAMES:
        tokenizer, history = run(folder / name, recipe_of(name))
        assert not dist.is_initialized()
        kept = {key: value for key, value in vars(history).items() if key != "seconds"}
        torch.save((tokenizer.state_dict(), kept), folder / f"{name} {rank}.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    assert in_two(train_all, folder) == [0, 0]
    return folder


def without_effect(tokenizer):
    """Names of biases in front of a BatchNorm: their gradient is rounding alone, which Adam makes steps of."""
    names = set()
    for name, module in tokenizer.named_modules():
        if isinstance(module, nn.Sequential):
            for number in range(len(module) - 1):
                if isinstance(module[number + 1], nn.BatchNorm2d):
                    names |= {f"{name}.{number}.bias", f"{name}.{number + 1}.running_mean"}
    return names


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(trained, tmp_path, name):
    (weights, history), (others, other_history) = (torch.load(trained / f"{name} {rank}.pt") for rank in range(2))
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    assert history == other_history
    tokenizer, alone = run(tmp_path, recipe_of(name))
    # Biases in front of unit power wander as `without_effect` says, and its running means follow them late.
    wandering = name == "vector normalized"
    assert history["train_mse"] == pytest.approx(alone.train_mse, rel=1e-2 if wandering else 2e-4)
    quantization = pytest.approx(alone.train_quantization, rel=1e-2 if wandering else 2e-3, abs=1e-5)
    assert history["train_quantization"] == quantization
    assert [test["step"] for test in history["tests"]] == [4, 8, 10]
    assert [test["test_mse"] for test in history["tests"]] == pytest.approx([t["test_mse"] for t in alone.tests], 1e-2)
    skipped = without_effect(tokenizer)
    assert len(skipped) == 20
    if wandering:  # a vector or two then chooses another code
        skipped |= {"quantizer.codebook.recent_counts"}
    tolerance = 2e-2 if wandering else 2e-3
    for key, value in tokenizer.state_dict().items():
        if key not in skipped:
            torch.testing.assert_close(
                weights[key], value, rtol=tolerance, atol=tolerance, msg=lambda text, key=key: key + text
            )


def test_only_the_first_process_writes(trained):
    assert {path.name for path in (trained / "vector").iterdir()} == {
        "recipe.json", "checkpoints", "tensorboard", "model"
    }  # fmt: skip
    assert len(list((trained / "vector" / "tensorboard").glob("events*"))) == 1


def batches():
    """Channels far from zero, and two batches of which each process has a half."""
    torch.manual_seed(0)
    return torch.randn(2, 8, 3, 4, 5) * torch.tensor([1.0, 0.1, 3.0])[:, None, None] + 300


def normalize(x, module, rank=0, world_size=1):
    share = len(x[0]) // world_size
    results = []
    for batch in x:
        own = batch[rank * share : (rank + 1) * share].clone().requires_grad_()
        y = module(own)
        module.zero_grad()
        weight = torch.linspace(-1, 1, batch.numel()).view_as(batch)[rank * share : (rank + 1) * share]
        (y.sin() * weight).sum().mul(world_size).backward()
        results.append((y.detach(), own.grad / world_size, module.weight.grad.clone(), module.bias.grad.clone()))
    return results


def primitives(rank, folder):
    dist.init_process_group("gloo")
    assert rank_and_size() == (rank, 2)
    assert not agree(f"rank {rank}")
    assert agree("the same")
    assert all_gather(torch.tensor([[rank]])).tolist() == [[0], [1]]
    collapsed = Tokens(codes=torch.zeros(8, 1, 8, 8, dtype=torch.long))
    healthy = Tokens(codes=torch.arange(64).repeat(8).view(8, 1, 8, 8))
    assert Watch(64).look(200, 1.0, (collapsed, healthy)[rank]) == []
    runaway = Tokens(gains=torch.ones(1, 1, 8, 8))
    runaway.gains[0, 0, 0, 0] += 40 * rank
    assert "41 times the median" in Watch(64).look(200, 1.0, runaway)[0]
    module = BatchNorm2d(3)
    results = normalize(batches(), module, rank, 2)
    half = module(batches()[0][:4].bfloat16())
    noise = step_noise(7, torch.empty(4, 2, 3))
    torch.save((results, module.state_dict(), half.dtype, noise), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_primitives_with_two_processes(tmp_path):
    assert in_two(primitives, tmp_path) == [0, 0]
    (first, state, dtype, noise), (second, other, _, rest) = (torch.load(tmp_path / f"{r}.pt") for r in range(2))
    assert dtype == torch.bfloat16
    assert torch.equal(torch.cat([noise, rest]), step_noise(7, torch.empty(8, 2, 3)))
    assert all(torch.equal(value, other[key]) for key, value in state.items())
    module = nn.BatchNorm2d(3).double()
    expected = normalize(batches().double(), module)
    for (y, x_gradient, *_), (y2, x_gradient2, *_), (y0, x_gradient0, *_) in zip(first, second, expected, strict=True):
        torch.testing.assert_close(torch.cat([y, y2]).double(), y0, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(torch.cat([x_gradient, x_gradient2]).double(), x_gradient0, rtol=1e-2, atol=1e-3)
    for (*_, a, b), (*_, a2, b2), (*_, a0, b0) in zip(first, second, expected, strict=True):
        torch.testing.assert_close((a + a2).double() / 2, a0, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close((b + b2).double() / 2, b0, rtol=1e-3, atol=1e-2)


def test_running_statistics_are_those_of_the_whole_batch():
    """With one process the class is PyTorch's own, to the bit."""
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for mine, reference in zip(normalize(batches(), ours), normalize(batches(), theirs), strict=True):
        assert all(map(torch.equal, mine, reference))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
