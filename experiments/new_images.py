"""What priors draw, measured by a classifier that saw none of it, and shown unpicked.

    python -m experiments.new_images --priors NAME=RUN ... --classifier runs/classifier --data PATH_OR_HUB_ID \
        --out docs/results/new-images

Draws as many images of each class at every guidance, and writes result.json, README.md, and for each prior, at the
guidance with the lowest Frechet distance: NAME.png (a row of each class), NAME-nearest.png (each of these above the
nearest training image) and NAME-completed.png (held-out images of which the upper half was kept). What is measured is
kept in result.json as it is found, and the same command goes on from there. A prior without classes draws as many
images of any.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.classifier import ResNet9, batches, load_classifier
from experiments.distances import frechet_distance, kernel_distance, nearest, precision_and_recall
from experiments.pages import write_page
from hybridvq import load_prior, load_tokenizer, open_images
from hybridvq.comparison.plan import hardware
from hybridvq.data import Images
from hybridvq.data.batches import to_tensor
from hybridvq.documents import read_json, to_json
from hybridvq.files import save_png
from hybridvq.generation import continue_image, generate, picture_grid, show_kept
from hybridvq.pixels import to_pixels
from hybridvq.priors import Prior, tokenizer_of_prior
from hybridvq.settings import SamplingSettings
from hybridvq.tokenizer import Tokenizer
from hybridvq.writing import write_whole

SHOWN, COMPLETED, CONTINUATIONS, ZOOM = 8, 3, 5, 2


class Measure:
    """Features and classes of images, and how far they are from the training set's.

    Args:
        network: the classifier.
        images, held_out: of both splits.
        count: how many images each set that is compared has; of the training set `reference` are used.
    """

    def __init__(self, network: ResNet9, images: Images, held_out: Images, count: int, reference: int) -> None:
        self.network, self.images, self.held_out = network, images, held_out
        random = np.random.default_rng(0)
        chosen = torch.from_numpy(random.permutation(len(images))[:reference])
        self.every = self.features(batches(images))
        self.real, self.count = self.every[chosen], min(count, len(held_out))
        self.chosen = random.permutation(len(held_out))[: self.count]

    @torch.inference_mode()
    def features(self, parts: Any) -> Tensor:
        return torch.cat([self.network.features(x).float() for x in parts])

    def __call__(self, x: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """The row of images x (n, 3, H, W) that were to be of these classes (n,)."""
        features = self.features(x.split(256))
        precision, recall = precision_and_recall(self.real[: len(x)], features)
        row: dict[str, Any] = {
            "images": len(x),
            "frechet": frechet_distance(self.real, features),
            "kernel": kernel_distance(self.real, features),
            "precision": precision,
            "recall": recall,
        }
        if labels is None:
            return row
        with torch.inference_mode():
            right = (self.network.output(features).argmax(1) == labels).double()
        by_class = [right[labels == c].mean().item() for c in range(self.network.classes)]
        return row | {"accuracy": right.mean().item(), "by_class": by_class}

    def real_images(self) -> tuple[Tensor, Tensor]:
        """Held-out images, as many as are compared, and their classes."""
        assert self.held_out.class_ids is not None
        x = np.stack([self.held_out.crop(int(i), None) for i in self.chosen])
        return to_tensor(x), torch.from_numpy(self.held_out.class_ids[self.chosen])


def labels_of(prior: Prior, count: int) -> list[int | None]:
    """As many of each class in turn, or none."""
    if prior.classes is None:
        return [None] * count
    return [c for c in range(prior.classes) for _ in range(count // prior.classes)]


def guidances_of(prior: Prior, wanted: list[float]) -> list[float]:
    return wanted if prior.classes is not None and prior.knows_unlabeled else [1.0]


def settings_of(prior: Prior, guidance: float, given: argparse.Namespace) -> SamplingSettings:
    passes = given.passes if prior.in_passes else None
    return SamplingSettings(given.temperature, guidance=guidance, passes=passes)


@torch.inference_mode()
def reconstructed(tokenizer: Tokenizer, x: Tensor) -> Tensor:
    return torch.cat([tokenizer.decode(tokenizer.encode(part)) for part in x.split(64)])


def drawn(
    prior: Prior, tokenizer: Tokenizer, guidance: float, given: argparse.Namespace
) -> tuple[Tensor, Tensor | None]:
    """Images, and the classes that were asked for."""
    labels = labels_of(prior, given.count)
    x = generate(prior, tokenizer, labels, prior.shape, settings_of(prior, guidance, given), given.seed)
    return x, None if labels[0] is None else torch.tensor(labels)


def measure(measure_of: Measure, name: str, given: argparse.Namespace, result: dict[str, Any]) -> None:
    """Fill in what a prior's part of the result lacks, and draw its pictures."""
    folder = given.priors[name]
    prior = load_prior(folder)
    tokenizer = load_tokenizer(tokenizer_of_prior(folder))
    part = result["priors"].setdefault(name, {"samples": {}})
    part |= {"weights": sum(p.numel() for p in prior.parameters()), "grid": list(prior.shape), "stages": prior.stages}
    part |= {"codebook_size": prior.codebook_size, "gain": prior.kind, "in_passes": prior.in_passes}
    if "reconstructions" not in part:
        x, labels = measure_of.real_images()
        part["reconstructions"] = measure_of(reconstructed(tokenizer, x), labels)
    draw = cache(lambda guidance: drawn(prior, tokenizer, guidance, given))
    for guidance in guidances_of(prior, given.guidance):
        if str(guidance) not in part["samples"]:
            part["samples"][str(guidance)] = measure_of(*draw(guidance))
            write_whole(given.out / "result.json", to_json(result, indent=2))
            print(name, guidance, part["samples"][str(guidance)], flush=True)
    part["best"] = min(part["samples"], key=lambda key: part["samples"][key]["frechet"])
    best = float(part["best"])
    show(measure_of, name, draw(best), given)
    write(completions(measure_of, prior, tokenizer, given, best), given.out / f"{name}-completed.png")


def show(measure_of: Measure, name: str, images: tuple[Tensor, Tensor | None], given: argparse.Namespace) -> None:
    """The first of each class that were drawn, alone and each above the nearest training image."""
    x, labels = images
    each = len(x) if labels is None else len(x) // len(labels.unique())
    x = torch.cat([part[:SHOWN] for part in x.split(each)]) if labels is not None else x[: SHOWN * SHOWN]
    titles = list(measure_of.images.classes or ()) if labels is not None else []
    write(picture_grid(x, SHOWN, titles), given.out / f"{name}.png")
    near = nearest(measure_of.features([x]), measure_of.every)
    beside = to_tensor(np.stack([measure_of.images.crop(int(i), None) for i in near]))
    rows = [row for pair in zip(x.split(SHOWN), beside.split(SHOWN), strict=True) for row in pair]
    names = [text for i in range(len(rows) // 2) for text in (titles[i] if titles else "drawn", "nearest")]
    write(picture_grid(torch.cat(rows), SHOWN, names), given.out / f"{name}-nearest.png")


def completions(
    measure_of: Measure, prior: Prior, tokenizer: Tokenizer, given: argparse.Namespace, guidance: float
) -> np.ndarray:
    """A row of each held-out image: the image, what is kept of it, continuations."""
    x, labels = measure_of.real_images()
    settings, shown = settings_of(prior, guidance, given), []
    for i in range(COMPLETED):
        picture = Image.fromarray(to_pixels(x[i : i + 1])[0].numpy())
        kept = continue_image(picture, "top", tokenizer, prior.shape)
        label = None if prior.classes is None else int(labels[i])
        made = generate(prior, tokenizer, [label] * CONTINUATIONS, prior.shape, settings, given.seed, kept)
        shown += [x[i : i + 1], show_kept(kept, tokenizer), made]
    return picture_grid(torch.cat(shown), CONTINUATIONS + 2)


def write(grid: np.ndarray, path: Path) -> None:
    save_png(Image.fromarray(grid.repeat(ZOOM, 0).repeat(ZOOM, 1)), path)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--priors", nargs="+", required=True, help="NAME=RUN, as `hybridvq train-prior` writes them")
    parser.add_argument("--classifier", type=Path, required=True, help="what experiments.classifier wrote")
    parser.add_argument("--data", required=True)
    parser.add_argument("--guidance", nargs="+", type=float, default=[1.0, 2.0, 3.0, 5.0, 7.0])
    parser.add_argument("--count", type=int, default=2000, help="images of each set, of all classes together")
    parser.add_argument("--reference", type=int, default=10000, help="training images that distances are to")
    parser.add_argument("--passes", type=int, default=16, help="of masked priors")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/new-images"))
    given = parser.parse_args(words)
    given.priors = dict(pair.split("=", 1) for pair in given.priors)
    network, about = load_classifier(given.classifier)
    images, held_out = (open_images(given.data, split, size=about["size"]) for split in ("train", "test"))
    given.out.mkdir(parents=True, exist_ok=True)
    setting = {key: getattr(given, key) for key in ("count", "reference", "passes", "temperature", "seed")}
    result: dict[str, Any] = {"setting": setting, "classifier": about, "machine": hardware()["name"], "priors": {}}
    path = given.out / "result.json"
    if path.is_file():
        found = read_json(path)
        if found["setting"] != setting or found["classifier"] != about:
            raise SystemExit(f"{path} was measured with another setting or classifier; delete it, or use another --out")
        result = found
    measure_of = Measure(network, images, held_out, given.count, given.reference)
    if "held_out" not in result:
        result["held_out"] = measure_of(*measure_of.real_images())
    for name in given.priors:
        measure(measure_of, name, given, result)
    write_whole(path, to_json(result, indent=2))
    write_page(given.out, "new-images")


if __name__ == "__main__":
    main()
