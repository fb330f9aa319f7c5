"""A network and a loss from outside the package, by name and as they are, all the way to files, samples and ONNX."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import tiny
from hybridvq import ModelError, Tokenizer, VectorQuantizer, load_tokenizer, load_tokens, tokenize
from hybridvq.cli import main
from hybridvq.losses import LOSSES, PatchDiscriminator
from hybridvq.networks import NETWORKS
from hybridvq.settings import PriorSettings, PriorTrainingSettings
from hybridvq.training import fit_prior
from runs import cut_off, read_checkpoint, run, weights


class OutsideEncoder(nn.Sequential):
    def __init__(self, dim, downsampling, width=12):
        f = downsampling
        super().__init__(nn.Conv2d(3, width, f, stride=f), nn.SiLU(), nn.Conv2d(width, dim, 3, padding=1))


class OutsideDecoder(nn.Sequential):
    def __init__(self, dim, downsampling):
        super().__init__(nn.Conv2d(dim, 3 * downsampling**2, 3, padding=1), nn.PixelShuffle(downsampling), nn.Tanh())


class Gradients(nn.Module):
    """The mean of |x_hat - x| and of the same of their horizontal differences; one number for each image."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power
        self.register_buffer("frozen", torch.ones(3))

    def forward(self, x_hat, x):
        assert not self.training
        error = (x_hat - x) * self.frozen[:, None, None]
        return (error.abs() + F.pad(error.diff(dim=-1), (0, 1)).abs() ** self.power).mean((1, 2, 3))


class Judge(nn.Module):
    """A loss with weights of its own that learn."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Linear(3, 1)

    def forward(self, x_hat, x):
        assert not any(p.requires_grad for p in self.parameters())
        return (x_hat - x).square().mean() - self.layers(x_hat.mean((2, 3))).mean()

    def opponent_loss(self, x_hat, x):
        assert not x_hat.requires_grad
        real, made = (self.layers(images.mean((2, 3))) for images in (x, x_hat))
        return (1 - real).square().mean() + (1 + made).square().mean()


RECIPE = """
model:
  network: outside
  network_options: {width: 10}
  dim: 6
  options: {codebook_size: 32}
training:
  loss: {mse: 1.0, gradients: {weight: 0.5, power: 2.0}}
  steps: 12
  batch_size: 8
  eval_every: 6
"""


@pytest.fixture
def named(monkeypatch):
    monkeypatch.setitem(NETWORKS, "outside", (OutsideEncoder, OutsideDecoder))
    monkeypatch.setitem(LOSSES, "gradients", Gradients)


def test_named_ones_go_all_the_way_from_the_command_line(named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside.yaml").write_text(RECIPE)
    photo = tiny.images("test", 48).crop(0, None)[:45, :38]
    Image.fromarray(photo).save("photo.png")
    assert main(["train", "--recipe", "outside.yaml", "--size", "16", "--out", "mine"]) == 0
    tokenizer = load_tokenizer("mine")
    assert isinstance(tokenizer.encoder, OutsideEncoder)
    assert not [name for name in tokenizer.state_dict() if "loss" in name or "frozen" in name]
    capsys.readouterr()
    assert main(["evaluate", "mine", "--limit", "8", "--json", "result.json"]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["codebook_size"] == 32
    assert main(["fit-codec", "mine", "--size", "16", "--images", "8", "--steps", "2"]) == 0
    assert main(["compress", "photo.png", "--model", "mine", "-o", "photo.hvq"]) == 0
    assert main(["decompress", "photo.hvq", "--model", "mine", "-o", "back.png"]) == 0
    with Image.open("back.png") as back:
        assert back.size == (38, 45)
        x = torch.from_numpy(np.pad(photo, ((0, 3), (0, 2), (0, 0)), "edge")).permute(2, 0, 1)[None] / 127.5 - 1
        whole = tokenizer(x).x_hat[0, :, :45, :38].permute(1, 2, 0)
        assert np.abs(np.asarray(back) / 127.5 - 1 - whole.detach().numpy()).max() < 0.05
    assert main(["export", "mine", "--format", "onnx", "--out", "exported"]) == 0
    assert {path.suffix for path in (tmp_path / "exported").iterdir()} >= {".onnx"}


def test_a_prior_learns_the_tokens_of_a_network_from_outside(named, tmp_path):
    torch.manual_seed(0)
    Tokenizer(6, 4, options={"codebook_size": 32}, network="outside").save_pretrained(tmp_path / "model")
    for split in ("train", "test"):
        tokenize(tmp_path / "model", tiny.images(split), tmp_path / split, workers=1)
    schedule = PriorTrainingSettings(steps=4, batch_size=4, eval_every=2, precision="32-true")
    settings = PriorSettings("transformer", {"width": 16, "layers": 1, "heads": 2}, False, schedule)
    sets = load_tokens(tmp_path / "train"), load_tokens(tmp_path / "test")
    _, history = fit_prior(settings, tmp_path / "model", *sets, tmp_path / "prior", progress=False)
    assert history.tests[-1]["bits"] > 0


def parts():
    torch.manual_seed(0)
    modules = {"encoder": OutsideEncoder(6, 4), "decoder": OutsideDecoder(6, 4)}
    return modules | {"quantizer": VectorQuantizer(6, codebook_size=32)}


@pytest.mark.parametrize("loss", [Gradients, Judge, lambda: PatchDiscriminator(8, 1)])
def test_modules_train_and_resume_to_the_bit(tmp_path, monkeypatch, loss):
    recipe, made = tiny.recipe(), {"tokenizer": lambda: Tokenizer(6, 4, **parts()), "loss": loss}

    def options():
        torch.manual_seed(1)
        return {key: make() for key, make in made.items()}

    given = options()
    run(tmp_path / "whole", recipe, **given)
    name = type(given["loss"]).__name__
    assert json.loads((tmp_path / "whole" / "recipe.json").read_text())["training"]["loss"] == {"given": name}
    cut_off(tmp_path / "cut", recipe, 8, monkeypatch, **options())
    with pytest.raises(ModelError, match=r"another recipe, seed or images \(see training\.loss"):
        run(tmp_path / "cut", recipe, resume=True, **options() | {"loss": nn.MSELoss()})
    run(tmp_path / "cut", recipe, resume=True, **options())
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert not [key for key in load_tokenizer(tmp_path / "cut", **parts()).state_dict() if "terms" in key]
    learned = [key for key in read_checkpoint(tmp_path / "cut")["state_dict"] if key.startswith("loss.terms")]
    assert learned
    run(tmp_path / "mse", recipe, tokenizer=options()["tokenizer"], loss=nn.MSELoss())
    run(tmp_path / "named", recipe, tokenizer=options()["tokenizer"])
    assert weights(tmp_path / "mse") == weights(tmp_path / "named") != weights(tmp_path / "whole")
