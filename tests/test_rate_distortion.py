"""Training by rate and distortion, with an average of the weights, and what a hybrid model then does and refuses."""

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tiny
from hybridvq import (
    CodecError,
    ConfigError,
    Tokenizer,
    build_prior,
    evaluate,
    export_onnx,
    load_recipe,
    load_tokenizer,
    open_images,
    tokenize,
)
from hybridvq.cli import main
from hybridvq.codec import fit_tables
from hybridvq.data import Stream, TrainBatches, read_image
from hybridvq.data.batches import crop_draws
from hybridvq.data.images import random_crop
from hybridvq.losses import RateDistortion
from hybridvq.quantizers import HybridQuantizer, Rate, step_of_quality
from hybridvq.settings import DataSettings, TrainingSettings
from hybridvq.training.module import TokenizerTraining, average_of
from hybridvq.training.run import load_checkpoint
from runs import read_checkpoint, run

STEPS = [0.3, 1.0, 3.0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "hybrid"
    return folder, *run(folder, tiny.recipe("hybrid"))


def test_the_loss_is_bits_and_errors_at_the_rate_of_each_step():
    torch.manual_seed(0)
    x, x_hat = torch.rand(2, 2, 3, 8, 8, dtype=torch.double) * 2 - 1
    step = torch.tensor([0.5, 2.0], dtype=torch.double)
    bits, aside = torch.tensor([100.0, 30.0]), torch.tensor([7.0, 9.0])
    terms = RateDistortion()(x_hat, x, Rate(bits, aside, 0.0067 / step**2, step**0.6))
    expected = 0.0
    for i in range(2):
        pixels, guess = ((image[i].numpy() + 1) / 2 * 255 for image in (x, x_hat))
        s = float(step[i])
        expected += s**0.6 * (float(bits[i]) / 64 + 0.0067 / s**2 * np.mean((pixels - guess) ** 2)) / 2
    assert float(terms["reconstruction"] + terms["rate"]) == pytest.approx(expected)
    assert float(terms["aside"]) == pytest.approx(8 / 64)


def test_training_lowers_bits_and_errors(trained):
    _, tokenizer, history = trained
    assert len(history.train_mse) == tiny.STEPS
    assert history.tests[-1]["test_mse"] < history.tests[0]["test_mse"]
    assert tokenizer.quantizer.uses_codes
    assert history.tests[-1]["codes_used"] >= 1
    result = evaluate(tokenizer, tiny.test_batches())
    assert 0 < result["rate_bpp"] == result["entropy_rate_bpp"] < 100
    assert result["codebook_size"] == 4


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("hybrid", "mse", "training.loss is mse, but HybridQuantizer counts its bits; use rate-distortion"),
        ("vector", "rate-distortion", "but VectorQuantizer does not count its bits; use mse or psnr"),
    ],
)
def test_losses_that_do_not_fit_the_quantizer(tmp_path, name, loss, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(tmp_path / "run", tiny.recipe(name, loss=loss))
    assert not (tmp_path / "run").exists()


def test_the_average_starts_as_a_mean_and_forgets():
    torch.manual_seed(0)
    tokenizer = Tokenizer(4, options={"codebook_size": 4})
    averaged, bias = average_of(tokenizer, 0.5), tokenizer.decoder.layers[3].bias
    expected, values = 0.0, [1.0, 3.0, -2.0, 8.0]
    for count, value in enumerate(values):
        nn.init.constant_(bias, value)
        averaged.update_parameters(tokenizer)
        weight = 1.0 if count == 0 else max(0.5, 9 / (10 + count))
        expected += weight * (value - expected)
    assert averaged.module.decoder.layers[3].bias.tolist() == pytest.approx([expected] * 4)
    assert bias.tolist() == [8.0] * 4
    assert not any(parameter.requires_grad for parameter in averaged.parameters())


def test_the_average_is_what_is_kept_and_in_every_checkpoint(trained):
    folder = trained[0]
    state = read_checkpoint(folder)["state_dict"]
    kept = load_tokenizer(folder).state_dict()
    differs = 0
    for name, value in kept.items():
        assert torch.equal(value, state[f"averaged.module.{name}"]), name
        differs += not torch.equal(value, state[f"tokenizer.{name}"])
    assert differs > 10
    assert torch.equal(kept["quantizer.steps"], state["tokenizer.quantizer.steps"]), (
        "buffers are those of the last step"
    )


def test_gradients_are_clipped_by_their_own_norms():
    torch.manual_seed(0)
    tokenizer = Tokenizer(4, options={"codebook_size": 4})
    module = TokenizerTraining(tokenizer, TrainingSettings(clip=2.0), tiny.images(), 0)
    for parameter in tokenizer.parameters():
        parameter.grad = torch.ones_like(parameter)
    nn.init.constant_(tokenizer.quantizer.codebook.weight.grad, 1e-3)
    module.configure_gradient_clipping(None, None, None)
    networks = [p.grad for p in (*tokenizer.encoder.parameters(), *tokenizer.decoder.parameters())]
    assert nn.utils.get_total_norm(networks).item() == pytest.approx(2, rel=1e-3)
    assert tokenizer.quantizer.codebook.weight.grad.unique().item() == pytest.approx(1e-3)


def test_a_tokenizer_of_modules_is_trained_and_resumed(tmp_path):
    def made():
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 6, 4, stride=4), nn.ConvTranspose2d(6, 3, 4, stride=4)]
        return Tokenizer(6, 4, HybridQuantizer(6, groups=0), encoder=parts[0], decoder=parts[1])

    recipe = tiny.recipe("hybrid", steps=6)
    tokenizer, history = run(tmp_path / "run", recipe, tokenizer=made())
    assert history.train_mse[-1] < history.train_mse[0]
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())["model"]
    assert (written["encoder"], written["quantizer"]) == ({"given": "Conv2d"}, {"given": "HybridQuantizer"})
    modules = {name: getattr(made(), name) for name in ("encoder", "decoder", "quantizer")}
    loaded = load_tokenizer(tmp_path / "run", **modules)
    assert torch.equal(loaded.encoder.weight, tokenizer.encoder.weight)
    again, _ = run(tmp_path / "run", recipe, tokenizer=made(), resume=True)
    assert torch.equal(again.encoder.weight, tokenizer.encoder.weight)


def test_evaluate_gives_a_curve(trained, tmp_path, capsys):
    folder = trained[0]
    steps = f"--quantization-steps=[{','.join(map(str, STEPS))}]"
    assert main(["evaluate", str(folder), "--limit", "4", steps, "--json", str(tmp_path / "r.json")]) == 0
    curve = json.loads((tmp_path / "r.json").read_text())["steps"]
    shown = [line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    assert shown == [[f"{row['step']:g}", f"{row['rate_bpp']:.3f}"] for row in curve]
    assert [row["step"] for row in curve] == STEPS
    rates = [row["rate_bpp"] for row in curve]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    assert all(row["test_psnr_db"] == pytest.approx(10 * math.log10(4 / row["test_mse"])) for row in curve)


def test_the_average_is_what_a_checkpoint_is_measured_by(trained):
    """It is that of the last step, whose average became the model."""
    folder, tokenizer, _ = trained
    found, step = load_checkpoint(folder)
    assert step == tiny.STEPS
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in tokenizer.state_dict().items())


def test_reconstruct_takes_a_quality(trained, tmp_path, capsys):
    source = tmp_path / "a.png"
    Image.fromarray(tiny.images("test", 48).crop(0, None)[:45, :38]).save(source)
    rates = []
    for quality in ("5", "95"):
        assert (
            main(["reconstruct", str(trained[0]), str(source), "--out", str(tmp_path / "out"), "--quality", quality])
            == 0
        )
        rates.append(float(re.search(r"at ([\d.]+) bits", capsys.readouterr().out)[1]))
    assert rates[0] < rates[1]
    assert read_image(tmp_path / "out" / "a.png").shape == (45, 38, 3)
    assert main(["reconstruct", str(trained[0]), str(source), "--out", str(tmp_path / "out"), "--quality", "0"]) == 2
    assert "quality is 0" in capsys.readouterr().err


def test_what_a_hybrid_model_does_not_do_yet(trained, tmp_path):
    folder, tokenizer, _ = trained
    scalar = Tokenizer(8, 4, "hybrid", {"groups": 0})
    with pytest.raises(CodecError, match="this hybrid model has no codes, by which coefficients are coded"):
        fit_tables([], scalar, "ab" * 32)
    with pytest.raises(ConfigError, match=r"these tokens hold coefficients, so no prior here can model them"):
        build_prior("static", tokenizer.quantizer.space(), (4, 4))
    with pytest.raises(ConfigError, match="has a hybrid quantizer, whose step has no place in an exported model"):
        export_onnx(folder, tmp_path / "onnx")
    with pytest.raises(ConfigError, match="has a hybrid quantizer, whose coefficients and steps have no columns"):
        tokenize(folder, tiny.images("test"), tmp_path / "tokens")


def test_the_recipe_builds_what_the_trial_had():
    tokenizer = Tokenizer(**vars(load_recipe("photos").model))
    quantizer = tokenizer.quantizer
    strided = (75 * 64 + 64) + (25 * 64 * 96 + 96) + (25 * 96 * 96 + 96)
    others = (64**2 + 64) + (96**2 + 96) + 2 * (9 * 96**2 + 96) + 192 * 96
    assert sum(parameter.numel() for parameter in tokenizer.encoder.parameters()) == strided + others
    assert quantizer.codebook_size == 256
    assert quantizer.stages == 4
    x = torch.rand(1, 3, 32, 64) * 2 - 1
    with torch.inference_mode():
        tokens = tokenizer.eval().encode(x, step_of_quality(50))
    assert tokens.coefficients.shape == (1, 96, 4, 8)


def test_photographs_keep_their_size_up_to_a_short_side(tmp_path):
    for name, (width, height) in {"a": (90, 60), "b": (30, 40), "c": (10, 12)}.items():
        for split in ("train", "test"):
            (tmp_path / split).mkdir(exist_ok=True)
            Image.new("RGB", (width, height)).save(tmp_path / split / f"{name}.png")
    images = open_images(str(tmp_path), "train", size=16, short_side=48)
    assert sorted(images.pixels(i).shape[:2] for i in range(3)) == [(19, 16), (40, 30), (48, 72)]
    assert images.fingerprint != open_images(str(tmp_path), "train", size=16).fingerprint
    assert images.crop(0, None).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 16}, "short_side is 16; it must be at least the size, 32"),
        ({"short_side": 64, "stream": True}, "short_side is 64, but a stream is reduced to the size"),
    ],
)
def test_short_sides_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataSettings(**settings)


def test_a_stream_is_not_shrunk():
    stream = Stream.__new__(Stream)
    with pytest.raises(ConfigError, match=r"training.shrink is 1\.5, but images of a stream have the size of a crop"):
        TokenizerTraining(Tokenizer(4, options={"codebook_size": 4}), TrainingSettings(shrink=1.5), stream, 0)


def test_crops_of_several_scales():
    """A ramp shows by its slope how much of it a crop was cut from."""
    picture = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    for factor in (1.0, 1.5, 2.0, 9.0):
        crop = random_crop(picture, 40, np.array([0.5, 0.5, 0.0, factor]))
        assert crop.shape == (40, 40, 3)
        slope = np.diff(crop[20, 8:-8, 0].astype(int)).mean()
        assert slope == pytest.approx(2 * min(factor, 100 / 40), rel=0.05)
    plain = np.array([0.3, 0.7, 0.9])
    assert np.array_equal(random_crop(picture, 40, plain), random_crop(picture, 40, np.append(plain, 1.0)))


def test_scales_are_drawn_beside_what_was_drawn_before():
    draws, scaled = crop_draws(3, 5, 400), crop_draws(3, 5, 400, 4.0)
    assert np.array_equal(scaled[:, :3], draws)
    logs = np.log2(scaled[:, 3])
    assert 0 <= logs.min() < 0.1
    assert 1.9 < logs.max() <= 2
    assert abs(logs.mean() - 1) < 0.15
    whole, small = (TrainBatches(tiny.images(), 8, 4, 0, shrink=shrink) for shrink in (1.0, 3.0))
    assert not torch.equal(whole[1], small[1])
    parts = [TrainBatches(tiny.images(), 8, 4, 0, rank, 2, 3.0) for rank in range(2)]
    assert torch.equal(torch.cat([part[1] for part in parts]), small[1])
