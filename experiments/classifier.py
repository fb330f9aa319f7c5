"""A classifier of images by which samples are measured: trained here, on the same images, and seen by no prior.

    python -m experiments.classifier --data PATH_OR_HUB_ID --size 32 --out runs/classifier

writes OUT/classifier.safetensors and classifier.json with its accuracy on held-out images. The same command goes on
from the last checkpoint of a run that was cut off.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.data import EpochOrder, EvalBatches, Images, open_images
from hybridvq.data.batches import to_tensor
from hybridvq.documents import read_json, to_json
from hybridvq.training.engine import resolve_precision
from hybridvq.training.folder import write_checkpoint
from hybridvq.writing import write_whole

WEIGHTS, ABOUT, CHECKPOINT = "classifier.safetensors", "classifier.json", "checkpoint.pt"
MARGIN, HOLE = 4, 8  # pixels: how far crops move, the side of what is cut out
MOMENTUM, DECAY, SMOOTHING, AVERAGE = 0.9, 5e-4, 0.1, 0.999
RISE = 0.2  # the share of the steps in which the learning rate rises


class ResNet9(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to logits (B, classes); `features` are the (B, 8 width) numbers before.

    After D. Page's ResNet-9: 3x3 convolutions of width, 2, 4 and 8 times that, the later three each before a pooling
    of 2x2, and a residual block after the first and the last of these.
    """

    def __init__(self, classes: int, width: int = 40) -> None:
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            layer(3, w),
            layer(w, 2 * w, pool=True),
            Residual(2 * w),
            layer(2 * w, 4 * w, pool=True),
            layer(4 * w, 8 * w, pool=True),
            Residual(8 * w),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.output = nn.Linear(8 * w, classes, bias=False)
        self.width, self.classes = width, classes

    def features(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x)) / 8


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(layer(width, width), layer(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def layer(inputs: int, outputs: int, pool: bool = False) -> nn.Sequential:
    parts = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts[:1], *([nn.MaxPool2d(2)] if pool else []), *parts[1:])


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crops of uint8 images (B, H, W, 3), moved, mirrored half of the time, a square of them gray; (B, 3, H, W)."""
    n, h, w, _ = images.shape
    x = F.pad(to_tensor(images), (MARGIN,) * 4, "reflect")
    top, left = (torch.randint(2 * MARGIN + 1, (n, 1), generator=generator) for _ in range(2))
    columns = left + torch.arange(w)
    columns = torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns.flip(1), columns)
    batch, rows = torch.arange(n)[:, None, None], (top + torch.arange(h))[:, :, None]
    x = x.permute(0, 2, 3, 1)[batch, rows, columns[:, None]]
    y0, x0 = (torch.randint(1 - HOLE, side, (n, 1), generator=generator) for side in (h, w))
    in_rows, in_columns = (
        (torch.arange(side) >= at) & (torch.arange(side) < at + HOLE) for side, at in ((h, y0), (w, x0))
    )
    return x.masked_fill((in_rows[:, :, None] & in_columns[:, None])[..., None], 0.0).permute(0, 3, 1, 2)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """One cycle: linear up, then linear down to 0."""
    share = (step + 1) / steps
    return peak * min(share / RISE, max(0.0, 1 - share) / (1 - RISE))


class Run:
    """A training run: the network, the average of its weights, and how far it is."""

    def __init__(self, classes: int, width: int, peak: float, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.network, self.average = ResNet9(classes, width), ResNet9(classes, width)
        self.average.load_state_dict(self.network.state_dict())
        for network in (self.network, self.average):
            network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), peak, MOMENTUM, weight_decay=DECAY, nesterov=True, foreach=True
        )
        self.settings = {"classes": classes, "width": width, "peak": peak, "steps": steps, "seed": seed}
        self.step, self.mixed = 0, resolve_precision("auto", "cpu") == "bf16-mixed"

    def learn(self, x: Tensor, labels: Tensor) -> float:
        """One step."""
        rate = learning_rate(self.step, self.settings["steps"], self.settings["peak"])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            logits = self.network.train()(x)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        weight = max(1 - AVERAGE, 9 / (9 + self.step))
        own = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            value.lerp_(own[name], weight) if value.is_floating_point() else value.copy_(own[name])
        return loss.item()

    def save(self, path: Path) -> None:
        parts = {"network": self.network.state_dict(), "average": self.average.state_dict()}
        others = {"optimizer": self.optimizer.state_dict(), "step": self.step, "of": self.settings}
        write_checkpoint(parts | others, path)

    def load(self, path: Path) -> None:
        """Take up a run of the same settings; any other is refused."""
        state = torch.load(path, weights_only=True)
        if state["of"] != self.settings:
            raise SystemExit(f"{path} is of a run with {state['of']}; use another --out")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def train(
    images: Images,
    held_out: Images,
    out: Path,
    width: int,
    epochs: float,
    batch: int,
    peak: float,
    seed: int,
    every: float,
) -> ResNet9:
    """Train on `images`, from the checkpoint in `out` if there is one; `every` is seconds between checkpoints."""
    if images.classes is None or images.class_ids is None:
        raise SystemExit("these images have no classes")
    pixels = torch.from_numpy(np.stack([images.crop(i, None) for i in range(len(images))]))
    labels, steps = torch.from_numpy(images.class_ids), math.ceil(epochs * len(images) / batch)
    run, order = Run(len(images.classes), width, peak, steps, seed), EpochOrder(len(images), batch, seed)
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).is_file():
        run.load(out / CHECKPOINT)
    began, first, saved = time.perf_counter(), run.step, time.perf_counter()
    while run.step < steps:
        which = torch.from_numpy(order.indices(run.step))
        generator = torch.Generator().manual_seed(seed * 2**32 + run.step)
        loss = run.learn(augment(pixels[which], generator), labels[which])
        if time.perf_counter() - saved >= every or run.step == steps:
            saved = time.perf_counter()
            run.save(out / CHECKPOINT)
            speed = (run.step - first) * batch / (saved - began)
            print(f"step {run.step} of {steps}: loss {loss:.3f}, {speed:.0f} images/s", flush=True)
    network = run.average.eval()
    about = {"width": width, "classes": list(images.classes), "size": images.size, "epochs": epochs, "seed": seed}
    about |= {"accuracy": accuracy(network, held_out), "images": len(held_out), "data": images.fingerprint}
    write_whole(out / WEIGHTS, save({name: value.contiguous() for name, value in network.state_dict().items()}))
    write_whole(out / ABOUT, to_json(about, indent=2))
    print(json.dumps(about), flush=True)
    return network


@torch.inference_mode()
def accuracy(network: ResNet9, images: Images) -> float:
    """The share of images whose class it tells."""
    assert images.class_ids is not None
    found = torch.cat([network(x).argmax(1) for x in batches(images)])
    return float((found == torch.from_numpy(images.class_ids)).double().mean())


def batches(images: Images, size: int = 256) -> Iterator[Tensor]:
    every = EvalBatches(images, size)
    return (every[i] for i in range(len(every)))


def load_classifier(folder: Path) -> tuple[ResNet9, dict[str, Any]]:
    """The classifier that a run left, in evaluation mode, and what is written about it."""
    about = read_json(folder / ABOUT)
    network = ResNet9(len(about["classes"]), about["width"])
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.to(memory_format=torch.channels_last).eval(), about  # type: ignore[call-overload]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="what `hybridvq train --data` takes, with classes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"))
    parser.add_argument("--width", type=int, default=40)
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--peak", type=float, default=0.2, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=120, help="seconds between checkpoints")
    given = parser.parse_args()
    images, held_out = (open_images(given.data, split, size=given.size) for split in ("train", "test"))
    train(images, held_out, given.out, given.width, given.epochs, given.batch, given.peak, given.seed, given.every)


if __name__ == "__main__":
    main()
