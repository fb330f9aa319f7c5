"""A decoder for samples: the tokens of a tokenizer decoded to pictures whose mistakes look like pictures.

    python -m experiments.sample_decoder TOKENIZER --features runs/features --data PATH_OR_HUB_ID --out OUT
    python -m experiments.sample_decoder TOKENIZER --out OUT --prior PRIOR

The first trains the decoder on, from its own weights, by squared errors, the distance of a classifier's features and a
patch discriminator; encoder and quantizer stay, and so do the tokens. It writes OUT/model, and goes on from the last
checkpoint of a run that was cut off. The second gives a prior over the tokens of TOKENIZER the new decoder: it writes
OUT/prior. Let the classifier of --features be another than the one that measures, such as one of another seed.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.classifier import ResNet9, load_classifier
from hybridvq import Tokenizer, load_prior, load_tokenizer, open_images
from hybridvq.data import EpochOrder, Images
from hybridvq.data.batches import to_tensor
from hybridvq.losses import PatchDiscriminator, TotalLoss
from hybridvq.priors import save_with_tokenizer
from hybridvq.saved import model_folder, prior_folder, read_prior_config
from hybridvq.tokenizer import weight_hash
from hybridvq.training.engine import resolve_precision
from hybridvq.training.folder import write_checkpoint
from hybridvq.training.module import average_of

CHECKPOINT = "checkpoint.pt"
PARTS = ("decoder", "average", "loss", "optimizer", "opponent")  # of a run, whose states a checkpoint holds
AVERAGE, BATCH = 0.999, 64
WEIGHTS = {"mse": 1.0, "features": 0.1, "discriminator": 0.01}
DECAY = 0.5  # the share of the steps, at the end, in which the learning rate falls


class FeatureLoss(nn.Module):
    """The squared distance of a classifier's features of x_hat and x (B, 3, H, W), (B,).

    After each convolution and pooling, the features of a position are scaled to unit length; distances are a mean over
    positions and stages.

    Source: Zhang et al. 2018, arXiv:1801.03924, with features weighed alike.
    """

    def __init__(self, network: ResNet9) -> None:
        super().__init__()
        self.stages = nn.ModuleList(network.layers[:-2])

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        distances = []
        for stage in self.stages:
            x_hat, x = stage(x_hat), stage(x)
            difference = F.normalize(x_hat, dim=1) - F.normalize(x, dim=1)
            distances.append(difference.square().sum(1).mean((1, 2)))
        return torch.stack(distances).mean(0)


class Run:
    """A training run of a decoder: its weights, their average, the discriminator, and how far it is."""

    def __init__(self, tokenizer: Tokenizer, network: ResNet9, rate: float, steps: int, start: int) -> None:
        torch.manual_seed(0)
        terms = {"mse": nn.MSELoss(), "features": FeatureLoss(network)}
        self.loss = TotalLoss(terms | {"discriminator": PatchDiscriminator(32, 2, start)}, WEIGHTS)
        self.tokenizer, self.decoder = tokenizer.eval(), tokenizer.decoder  # norms keep their statistics
        self.average = average_of(self.decoder, AVERAGE)
        self.optimizer = torch.optim.Adam(self.decoder.parameters(), rate, betas=(0.5, 0.99))
        self.opponent = self.loss.optimizer(rate)
        self.rate, self.steps, self.step = rate, steps, 0
        self.mixed = resolve_precision("auto", "cpu") == "bf16-mixed"

    def learn(self, z_hat: Tensor, x: Tensor) -> dict[str, float]:
        """One step."""
        rate = self.rate * min(1.0, (self.steps - self.step) / (DECAY * self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            x_hat = self.decoder(z_hat)
            assert self.opponent is not None
            self.loss.learn(x_hat, x, self.opponent, rate)
            terms = self.loss(x_hat, x)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer.step()
        self.step += 1
        self.average.update_parameters(self.decoder)
        return {name: term.item() for name, term in terms.items()}

    @property
    def state(self) -> dict[str, object]:
        assert self.opponent is not None
        own = {name: getattr(self, name).state_dict() for name in PARTS}
        return own | {"step": self.step, "steps": self.steps}

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["steps"] != self.steps:
            raise SystemExit(f"{path} is of a run of {state['steps']} steps; use another --out")
        assert self.opponent is not None
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def train(
    tokenizer: Tokenizer, network: ResNet9, images: Images, out: Path, steps: int, rate: float, start: int, every: float
) -> Tokenizer:
    """Train the decoder of a tokenizer on images and their mirror images; `every` is seconds between checkpoints."""
    pixels = np.stack([images.crop(i, None) for i in range(len(images))])
    pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
    run, order = Run(tokenizer, network, rate, steps, start), EpochOrder(len(pixels), BATCH, 0)
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).is_file():
        run.load(out / CHECKPOINT)
    saved, first, began = time.perf_counter(), run.step, time.perf_counter()
    while run.step < steps:
        x = to_tensor(pixels[order.indices(run.step)])
        with torch.no_grad():
            z_hat = tokenizer.quantizer.dequantize(tokenizer.encode(x))
        terms = run.learn(z_hat, x)
        if time.perf_counter() - saved >= every or run.step == steps:
            saved = time.perf_counter()
            write_checkpoint(run.state, out / CHECKPOINT)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
            print(
                f"step {run.step} of {steps}: {shown}, {(run.step - first) * BATCH / (saved - began):.0f} images/s",
                flush=True,
            )
    tokenizer.decoder.load_state_dict(run.average.module.state_dict())
    tokenizer.save_pretrained(out / "model")
    return tokenizer


def rebind(prior: str, tokenizer: str, model: Path, out: Path) -> None:
    """Write a prior to `out` with the tokenizer in `model`, which gives the same tokens as its own."""
    folder = prior_folder(prior)
    config = read_prior_config(folder)
    if config.tokenizer != weight_hash(model_folder(tokenizer)):
        raise SystemExit(f"{prior} models the tokens of another tokenizer than {tokenizer}")
    save_with_tokenizer(load_prior(prior), out, model, config.class_names)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", help="a run, a model folder or a bundled tokenizer")
    parser.add_argument("--features", type=Path, help="what experiments.classifier wrote")
    parser.add_argument("--data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", help="a prior over the tokens of the tokenizer, for OUT/prior")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--start", type=int, default=1000, help="steps before the discriminator counts")
    parser.add_argument("--every", type=float, default=120, help="seconds between checkpoints")
    given = parser.parse_args(words)
    if given.prior:
        rebind(given.prior, given.tokenizer, given.out / "model", given.out / "prior")
        return
    if not (given.features and given.data):
        parser.error("give --features and --data to train a decoder, or --prior to use it")
    network, about = load_classifier(given.features)
    images = open_images(given.data, "train", size=about["size"])
    tokenizer = load_tokenizer(given.tokenizer)
    train(tokenizer, network, images, given.out, given.steps, given.rate, given.start, given.every)


if __name__ == "__main__":
    main()
