"""Training: determinism, divergence, failures, optimizer state and the clock. Runs are tiny but real."""

import errno
import itertools
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

import hybridvq.settings
import tiny
from hybridvq import ConfigError, DataError, ShapeError, Tokenizer, TrainingError, VectorQuantizer
from hybridvq.data import TrainBatches
from hybridvq.data.photos import PhotoTiles
from hybridvq.networks import BatchNorm2d
from hybridvq.training import History
from hybridvq.training.module import TokenizerTraining, enlarge, zoom_draws
from runs import read_checkpoint, run, weights


def test_the_seed_decides_everything(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / folder, tiny.recipe(steps=6), seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    a, c = (load_file(tmp_path / folder / "model" / "model.safetensors") for folder in "ac")
    assert not torch.equal(a["encoder.layers.0.weight"], c["encoder.layers.0.weight"])


def test_every_quantizer_sees_the_same_batches(tmp_path, monkeypatch):
    seen = {}

    def record(self, step):
        batch = original(self, step)
        seen.setdefault(name, []).append((step, batch))
        return batch

    original = TrainBatches.__getitem__
    monkeypatch.setattr(TrainBatches, "__getitem__", record)
    for name in tiny.MODELS:
        run(tmp_path / name, tiny.recipe(name, steps=4))
    for batches in seen.values():
        assert [step for step, _ in batches] == [0, 1, 2, 3]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(batches, seen["vector"], strict=True))


def test_measuring_and_saving_do_not_change_the_weights(tmp_path):
    run(tmp_path / "often", tiny.recipe(eval_every=1, checkpoint_every=1))
    run(tmp_path / "seldom", tiny.recipe(eval_every=100, checkpoint_every=100))
    assert weights(tmp_path / "often") == weights(tmp_path / "seldom")


def test_frozen_normalization_uses_and_keeps_its_running_averages(tmp_path, monkeypatch):
    """A measurement on the way turns training mode off and on again, which must not thaw it."""
    monkeypatch.setattr(hybridvq.settings, "NORM_STEPS", 2)  # to go over in: from the 15th step to the 17th
    frozen, whole = (run(tmp_path / str(share), tiny.recipe(freeze_norm=share))[0] for share in (0.25, 0.0))
    counts = [
        {int(value) for key, value in tokenizer.state_dict().items() if key.endswith("num_batches_tracked")}
        for tokenizer in (frozen, whole)
    ]
    assert counts == [{17}, {20}]
    assert {module.settled for module in frozen.modules() if isinstance(module, BatchNorm2d)} == {0.0}


def test_zoom_cuts_out_a_part_and_enlarges_it():
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    whole, corner, last = enlarge(x, 2.0, torch.tensor([[0.0, 0.3, 0.7], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(whole, x[0], atol=1e-4)
    twice = F.interpolate(x, scale_factor=2, mode="bicubic").clamp(-1, 1)
    np.testing.assert_allclose(corner[:, 8:, 8:], twice[1, :, 8:32, 8:32], atol=1e-4)
    np.testing.assert_allclose(last[:, :-8, :-8], twice[2, :, 32:-8, 32:-8], atol=1e-4)


def test_zoom_differs_between_steps_and_images_and_spans_its_range(tmp_path):
    draws = torch.stack([zoom_draws(0, step, 8) for step in range(50)])
    assert len(draws.unique()) == draws.numel()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (draws.mean((0, 1)) - 0.5).abs().max() < 0.05
    assert torch.equal(zoom_draws(0, 7, 8), draws[7])
    run(tmp_path / "zoomed", tiny.recipe(zoom=2.0))
    run(tmp_path / "plain", tiny.recipe())
    assert weights(tmp_path / "zoomed") != weights(tmp_path / "plain")


def test_runs_with_the_psnr_loss_still_report_the_mse(tmp_path):
    history = run(tmp_path / "psnr", tiny.recipe(loss="psnr"))[1]
    assert 0 < history.train_mse[-1] < history.train_mse[0] < 2
    assert history.tests[-1]["test_mse"] > 0


@pytest.mark.parametrize("term", ["commitment", "codebook"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, term):
    calls = itertools.count(1)
    lookup = VectorQuantizer.lookup

    def fail_at_step_13(self, z):
        codes, e, losses = lookup(self, z)
        if self.training and next(calls) == 13:
            losses[term] = losses[term] * float("nan")
        return codes, e, losses

    monkeypatch.setattr(VectorQuantizer, "lookup", fail_at_step_13)
    with pytest.raises(
        TrainingError, match=rf"not finite at step 13 \(its term {term}\); lower training.learning_rate"
    ):
        run(tmp_path)
    state = read_checkpoint(tmp_path)
    assert state["global_step"] == 10
    assert all(value.isfinite().all() for value in state["state_dict"].values())
    assert not (tmp_path / "model").exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    """A gradient can overflow while the loss is finite; the next loss would tell, but the checkpoint comes first."""

    def spoil(self, optimizer):
        if self.global_step == 9:
            self.tokenizer.decoder.layers[-2].bias.grad.fill_(torch.inf)

    monkeypatch.setattr(TokenizerTraining, "on_before_optimizer_step", spoil)
    with pytest.raises(TrainingError, match="the weights are not finite after step 10"):
        run(tmp_path)
    assert read_checkpoint(tmp_path)["global_step"] == 5


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise ConfigError("no")

    monkeypatch.setattr(TokenizerTraining, "training_step", fail)
    with pytest.raises(ConfigError, match="no"):
        run(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    with pytest.raises(ConfigError):
        run(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes").read_text() == "keep"


def test_a_codebook_larger_than_the_first_batch_grows(tmp_path):
    recipe = tiny.recipe()
    recipe.model.options["codebook_size"] = 300
    with pytest.warns(UserWarning, match="codebook_size is 300, and the first batch holds only 128 encoder vectors"):
        tokenizer, _ = run(tmp_path, recipe)
    assert tokenizer.quantizer.codebook.initialised


def test_sizes_that_do_not_divide(tmp_path):
    with pytest.raises(ShapeError, match="images of 18 pixels per side do not divide into positions of 4x4"):
        run(tmp_path / "new", images=tiny.images(size=18))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range(tmp_path, seed):
    with pytest.raises(ConfigError, match=f"seed is {seed}"):
        run(tmp_path, seed=seed)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    step = TokenizerTraining.training_step

    def watch(self, x, batch_idx):
        if self.global_step == 7:
            monkeypatch.setattr(os, "fsync", full)
        return step(self, x, batch_idx)

    monkeypatch.setattr(TokenizerTraining, "training_step", watch)
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be written \(No space left on device\); make room"):
        run(tmp_path)
    assert read_checkpoint(tmp_path)["global_step"] == 5
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    monkeypatch.undo()
    run(tmp_path, resume=True)
    run(tmp_path / "whole")
    assert weights(tmp_path) == weights(tmp_path / "whole")


def test_a_model_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(self, folder):
        folder.mkdir(exist_ok=True)
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(Tokenizer, "save_pretrained", full)
    with pytest.raises(TrainingError, match=r"model cannot be written .*No space left.*; make room there and resume"):
        run(tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.glob("model*"))
    run(tmp_path, resume=True)
    assert (tmp_path / "model" / "config.json").exists()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file cannot be written \(.*\); choose another --out"):
        run(tmp_path / "file")


def test_images_that_vanish_while_training(tmp_path):
    class Vanishing(PhotoTiles):
        def crop_at(self, index, draw):
            if draw is not None and len(seen) == 24:
                raise DataError("x.png cannot be read as an image (no such file)")
            seen.append(index)
            return super().crop_at(index, draw)

    seen = []
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        run(tmp_path / "new", images=Vanishing("train", tiny.SIZE))
    assert not (tmp_path / "new").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    step = TokenizerTraining.training_step

    def interrupt(self, x, batch_idx):
        if self.global_step == 7:
            raise KeyboardInterrupt
        return step(self, x, batch_idx)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(TokenizerTraining, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 7; add --resume"):
        run(tmp_path)
    assert signal.getsignal(signal.SIGINT) == before
    assert read_checkpoint(tmp_path)["global_step"] == 5


def test_restarted_codes_forget_their_moments():
    tokenizer = Tokenizer(dim=4, options={"codebook_size": 6})
    module = TokenizerTraining(tokenizer, tiny.recipe().training, tiny.images(), 0)
    codebook = tokenizer.quantizer.codebook
    optimizer = module.configure_optimizers()["optimizer"]
    for parameter in tokenizer.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    before = {name: [v.clone() for v in optimizer.state[p].values()] for name, p in tokenizer.named_parameters()}
    codebook.restarted = torch.tensor([False, True, False, False, True, False])
    module.on_before_optimizer_step(optimizer)
    steps, *moments = optimizer.state[codebook.weight].values()
    assert steps == 1
    assert len(moments) == 2
    old = before.pop("quantizer.codebook.weight")[1:]
    for moment, previous in zip(moments, old, strict=True):
        assert (moment[[1, 4]] == 0).all()
        assert (previous[[1, 4]] != 0).all()
        assert torch.equal(moment[[0, 2, 3, 5]], previous[[0, 2, 3, 5]])
    for name, values in before.items():
        assert all(map(torch.equal, values, optimizer.state[tokenizer.get_parameter(name)].values()))


def test_the_losses_are_those_of_the_batches(tmp_path):
    """The first step's error is that of the untrained network on the first batch, in training mode."""
    _, history = run(tmp_path, tiny.recipe("identity", steps=1))
    torch.manual_seed(0)
    tokenizer = Tokenizer(dim=8, quantizer="identity").train()
    x = TrainBatches(tiny.images(), 8, 1, 0)[0]
    expected = np.mean((tokenizer(x).x_hat.detach().double().numpy() - x.double().numpy()) ** 2)
    assert history.train_mse == [pytest.approx(expected, rel=1e-5)]
    assert history.train_quantization == [0]


def test_speed_excludes_the_time_of_measurements(tmp_path, monkeypatch):
    import hybridvq.training.callbacks as callbacks

    class Clock:
        """A step takes a second, a measurement a hundred."""

        now = 0

        def perf_counter(self):
            return self.now

    def after(seconds, call):
        def timed(*words):
            clock.now += seconds
            return call(*words)

        return timed

    clock = Clock()
    monkeypatch.setattr(callbacks, "time", clock)
    monkeypatch.setattr(callbacks, "evaluate", after(100, callbacks.evaluate))
    monkeypatch.setattr(TokenizerTraining, "training_step", after(1, TokenizerTraining.training_step))
    _, history = run(tmp_path, tiny.recipe(eval_every=5))
    assert clock.now == tiny.STEPS + 4 * 100
    assert history.seconds == history.timed_steps == tiny.STEPS - 1
    assert history.images_per_second(8) == 8
    assert History().images_per_second(8) == 0


def test_what_a_run_writes(tmp_path):
    _, history = run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.json", "checkpoints", "tensorboard", "model"}
    written = json.loads((tmp_path / "recipe.json").read_text())
    assert written["model"]["options"] == tiny.MODELS["vector"][1]
    assert written["seed"] == 0
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("test/mse")] == [6, 12, 18, 20]
    assert [event.value for event in events.Scalars("test/mse")] == pytest.approx(
        [t["test_mse"] for t in history.tests]
    )


def test_training_is_quiet(tmp_path, capfd):
    run(tmp_path, progress=True)
    run(tmp_path, resume=True)
    assert capfd.readouterr() == ("", "")
    assert "lightning" in sys.modules
