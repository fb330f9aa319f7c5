"""The terms of the loss against their formulas, and what a run does with them: weights, options, resuming."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

import tiny
from hybridvq import ConfigError, ShapeError, load_recipe, load_tokenizer
from hybridvq.cli import main
from hybridvq.losses import LOSSES, MSSSIM, PSNR, PatchDiscriminator, TotalLoss, build_loss
from hybridvq.losses.similarity import BETAS, scales
from hybridvq.metrics import ssim
from runs import cut_off, read_checkpoint, run, weights

OPPONENT = {"mse": 1.0, "discriminator": {"weight": 0.1, "width": 8, "layers": 1, "start": 3}}


@pytest.fixture
def pair():
    """x_hat and x, of which x_hat is near."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 44, 48, generator=generator) * 2 - 1
    return (0.9 * x + 0.2 * torch.rand(x.shape, generator=generator) - 0.1), x


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mse", lambda e: np.mean(e**2)),
        ("l1", lambda e: np.mean(abs(e))),
        ("charbonnier", lambda e: np.mean(np.hypot(e, 1e-3))),
        ("psnr", lambda e: np.mean(0.02 * np.log(np.mean(e**2, (1, 2, 3)) + 0.001))),
    ],
)
def test_errors_of_pixels_are_their_formulas(pair, name, formula):
    x_hat, x = pair
    assert LOSSES[name]()(x_hat, x).item() == pytest.approx(formula((x_hat - x).double().numpy()), rel=1e-5)


def test_the_psnr_loss_counts_an_error_by_its_share_of_what_is_there():
    x, x_hat = torch.rand(2, 2, 3, 8, 8, dtype=torch.float64)
    x_hat = (x + (x_hat - 0.5) * torch.tensor([0.02, 1.0])[:, None, None, None]).requires_grad_()
    errors = (x_hat - x).square().mean((1, 2, 3)).detach()
    (given,) = torch.autograd.grad(PSNR()(x_hat, x), x_hat)
    (plain,) = torch.autograd.grad((x_hat - x).square().mean((1, 2, 3)).mean(), x_hat)
    np.testing.assert_allclose(given, plain * (0.02 / (errors + 0.001))[:, None, None, None])


def test_ms_ssim_is_the_published_one_at_its_size():
    x = torch.rand(1, 3, 176, 180, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x_hat = (0.8 * x).requires_grad_()
    value = MSSSIM()(x_hat, x)
    reference = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)((x_hat.detach() + 1) / 2, (x + 1) / 2)
    assert value.item() == pytest.approx(1 - reference.item(), abs=1e-5)
    assert torch.autograd.grad(value, x_hat)[0].abs().sum() > 0


def test_ms_ssim_of_small_images_has_fewer_scales(pair):
    assert [scales(side) for side in (11, 21, 22, 32, 43, 44, 64, 98, 99, 175, 176, 512)] == [
        1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5
    ]  # fmt: skip
    x_hat, x = pair
    for side in (11, 12, 22, 44):  # of one scale, it is SSIM
        alike = MSSSIM()(x[..., :side, :side], x[..., :side, :side])
        assert alike.item() == pytest.approx(0, abs=1e-5)
    small, reference = x_hat[..., :16, :16], x[..., :16, :16]
    assert MSSSIM()(small, reference).item() == pytest.approx(1 - ssim(small, reference).mean().item(), abs=0.02)
    assert sum(BETAS) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ShapeError, match="ms-ssim compares images of 11 pixels per side and more, and these have 8"):
        MSSSIM()(x[..., :8, :8], x[..., :8, :8])


def test_the_discriminator_is_its_formula(pair):
    torch.manual_seed(0)
    x_hat, x = pair
    term = PatchDiscriminator(8, 2, start=1)
    assert [term.opponent_loss(x_hat, x).item(), term(x_hat, x).item()] == [0, 0], "before its start"
    real, made = (term.layers(images).detach().numpy() for images in (x, x_hat))
    assert made.shape == (2, 1, 9, 10)
    hinge = (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + made).mean()) / 2
    assert term.opponent_loss(x_hat, x).item() == pytest.approx(hinge, rel=1e-5)
    assert term(x_hat, x).item() == pytest.approx(-made.mean(), rel=1e-4)
    with pytest.raises(ShapeError, match="needs images of 12 pixels per side and more, and these have 8"):
        term.opponent_loss(x_hat[..., :8, :8], x[..., :8, :8])


def test_the_discriminator_learns_to_tell_and_its_term_trains_the_image_alone():
    torch.manual_seed(0)
    loss = build_loss({"discriminator": {"width": 8, "layers": 1}})
    term, x = loss.terms["discriminator"], torch.rand(4, 3, 16, 16) - 0.5
    x_hat = (x + 0.5).requires_grad_()
    optimizer = loss.optimizer(1e-2)
    before = term.opponent_loss(x_hat, x).item()
    for _ in range(30):
        loss.learn(x_hat, x, optimizer, 1e-2)
    assert term.opponent_loss(x_hat, x).item() < before / 2
    assert optimizer.param_groups[0]["lr"] == 1e-2
    loss(x_hat, x)["discriminator"].backward()
    assert x_hat.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_a_sum_of_terms_is_weighed(pair):
    loss = build_loss({"l1": 2.0, "charbonnier": {"weight": 0.5, "epsilon": 0.1}, "mse": 0})
    x_hat, x = pair
    error = (x_hat - x).double().numpy()
    expected = {"l1": 2 * np.mean(abs(error)), "charbonnier": np.mean(np.hypot(error, 0.1)) / 2, "mse": 0}
    assert {name: value.item() for name, value in loss(x_hat, x).items()} == pytest.approx(expected, rel=1e-5)


def test_of_a_loss_for_each_image_the_mean_counts(pair):
    loss = TotalLoss({"mine": nn.PairwiseDistance()})
    assert loss(*pair)["mine"].item() == pytest.approx(nn.PairwiseDistance()(*pair).mean().item())


class Returns(nn.Module):
    def forward(self, x_hat, x):
        return 3.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lpips", "training.loss is 'lpips'; use mse, psnr, l1, charbonnier, ms-ssim, rate-distortion, discriminator"),
        ({"mse": 1, "lpips": 1}, "training.loss is 'lpips'"),
        ({}, "training.loss is {}; give the name of a term, or terms with weights"),
        (3, "training.loss is 3"),
        ({"mse": -1}, "training.loss.mse is -1; it must be a number from 0"),
        ({"mse": "much"}, "training.loss.mse is 'much'"),
        ({"mse": {"epsilon": 1}}, "training.loss.mse has no option 'epsilon'; it takes weight"),
        ({"charbonnier": {"epsilon": 0}}, "training.loss.charbonnier.epsilon is 0; it must be positive"),
        ({"discriminator": {"layers": 9}}, "training.loss.discriminator.layers is 9"),
        ({"discriminator": {"width": "x"}}, "training.loss.discriminator.width is 'x'"),
        ({"discriminator": {"start": -1}}, "training.loss.discriminator.start is -1"),
    ],
)
def test_what_is_no_loss_is_one_sentence(setting, message, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(tmp_path / "run", tiny.recipe(loss=setting))
    assert not (tmp_path / "run").exists()


def test_a_module_that_returns_no_tensor(tmp_path):
    with pytest.raises(ConfigError, match="the loss Returns returns float; it must return a tensor"):
        run(tmp_path / "run", loss=Returns())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("lpips", "recipe mine: training.loss is 'lpips'"),
        ("{mse: 1, discriminator: 1}", "recipe mine: the discriminator needs images of 24 pixels per side and more"),
        ("rate-distortion", "recipe mine: training.loss is rate-distortion, but VectorQuantizer does not count"),
    ],
)
def test_a_comparison_looks_at_the_losses_first(loss, message, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(
        f"model: {{dim: 4, options: {{codebook_size: 8}}}}\ntraining: {{loss: {loss}}}\n"
    )
    words = ["--recipes", "gaussian", str(tmp_path / "mine.yaml"), "--size", "16", "--batch_size", "4"]
    assert main(["compare", *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_recipes_and_words_give_losses(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("training:\n  loss: {mse: 1.0, ms-ssim: 0.1}\n")
    assert load_recipe(str(file)).training.loss == {"mse": 1.0, "ms-ssim": 0.1}
    assert load_recipe(str(file), {"training.loss": "psnr"}).training.loss == "psnr"
    discriminator = {"mse": 1.0, "discriminator": {"weight": 0.1, "start": 5}}
    assert load_recipe("vector", {"training.loss": discriminator}).training.loss == discriminator
    assert load_recipe("vector", ["--training.loss={l1: 2}"]).training.loss == {"l1": 2}


def test_a_discriminator_trains_resumes_to_the_bit_and_stays_behind(tmp_path, monkeypatch):
    recipe = tiny.recipe(loss=OPPONENT)
    tokenizer, whole = run(tmp_path / "whole", recipe)
    run(tmp_path / "plain", tiny.recipe())
    assert weights(tmp_path / "whole") != weights(tmp_path / "plain")
    kept = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    assert kept.keys() == load_file(tmp_path / "plain" / "model" / "model.safetensors").keys()
    assert load_tokenizer(tmp_path / "whole").config == tokenizer.config
    checkpoint = read_checkpoint(tmp_path / "whole")
    assert checkpoint["state_dict"]["loss.terms.discriminator.steps"] == tiny.STEPS
    assert checkpoint["loss_optimizer"]["state"][0]["step"] == tiny.STEPS
    cut_off(tmp_path / "cut", recipe, 7, monkeypatch)
    assert read_checkpoint(tmp_path / "cut")["global_step"] == 5
    _, resumed = run(tmp_path / "cut", recipe, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert (resumed.train_mse, resumed.tests) == (whole.train_mse, whole.tests)
    for name, value in read_checkpoint(tmp_path / "cut")["state_dict"].items():
        assert torch.equal(value, checkpoint["state_dict"][name]), name


def test_the_first_weights_of_a_discriminator_follow_from_the_seed(tmp_path):
    """Also those of a run with a tokenizer of its own, before which nothing was seeded."""
    recipe = tiny.recipe(loss=OPPONENT, steps=2)
    first = []
    for seed in (0, 0, 1):
        torch.manual_seed(3)
        tokenizer = run(tmp_path / f"{len(first)}-made", tiny.recipe(steps=2))[0]
        torch.manual_seed(len(first))
        run(tmp_path / str(len(first)), recipe, tokenizer=tokenizer.train(), seed=seed)
        state = read_checkpoint(tmp_path / str(len(first)))["state_dict"]
        first.append(state["loss.terms.discriminator.layers.0.weight"])
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
