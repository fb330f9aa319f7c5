"""What measures new images: the classifier, its training, and the distances on its features."""

import json
import math
import re

import numpy as np
import pytest
import torch
from experiments.classifier import Run, accuracy, augment, learning_rate, load_classifier, train
from experiments.distances import frechet_distance, kernel_distance, precision_and_recall
from experiments.gpu.prior import main as gpu_prior
from experiments.new_images import Measure
from experiments.new_images import main as new_images
from experiments.sample_decoder import FeatureLoss
from experiments.sample_decoder import Run as DecoderRun
from experiments.sample_decoder import main as train_decoder
from PIL import Image
from scipy import linalg

from hybridvq import load_prior, load_tokenizer, sample
from hybridvq.cli import main as hybridvq
from hybridvq.data import EvalBatches, open_images
from hybridvq.tokenizer import weight_hash

SIDE = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of noisy images: dark on the left, and dark on top."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 32), ("test", 12)):
        for name in ("left", "top"):
            for i in range(count):
                pixels = generator.integers(90, 250, (SIDE, SIDE, 3), dtype=np.uint8)
                half = np.s_[:, : SIDE // 2] if name == "left" else np.s_[: SIDE // 2]
                pixels[half] //= 4
                path = folder / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def sides(data):
    return [open_images(data, split, size=SIDE) for split in ("train", "test")]


SETTINGS = {"width": 4, "epochs": 12, "batch": 16, "peak": 0.1, "seed": 0, "every": 1e9}


@pytest.fixture(scope="module")
def classifier(sides, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier")
    train(*sides, out, **SETTINGS)
    return out


def test_a_classifier_learns_and_is_loaded_as_it_was(classifier, sides):
    network, about = load_classifier(classifier)
    assert about["accuracy"] == accuracy(network, sides[1]) > 0.9
    assert about["classes"] == ["left", "top"]
    x = torch.rand(3, 3, SIDE, SIDE) * 2 - 1
    assert network.features(x).shape == (3, 32)
    torch.testing.assert_close(network(x), network.features(x) @ network.output.weight.t() / 8)


def test_a_resumed_classifier_is_that_of_an_uninterrupted_run(classifier, sides, tmp_path, monkeypatch):
    original = Run.learn

    def fail(self, x, labels):
        if self.step == 20:
            raise KeyboardInterrupt
        return original(self, x, labels)

    monkeypatch.setattr(Run, "learn", fail)
    with pytest.raises(KeyboardInterrupt):
        train(*sides, tmp_path, **SETTINGS | {"every": 0.0})
    monkeypatch.setattr(Run, "learn", original)
    train(*sides, tmp_path, **SETTINGS)
    whole, parts = (load_classifier(folder)[0].state_dict() for folder in (classifier, tmp_path))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(SystemExit, match="is of a run with"):
        train(*sides, tmp_path, **SETTINGS | {"peak": 0.2})
    about = json.loads((tmp_path / "classifier.json").read_text())
    assert about["epochs"] == 12


def test_augmented_images_are_moved_mirrored_and_holed():
    """Each is the image with its border reflected, moved by up to 4 pixels, or its mirror image, but for a hole."""
    images = torch.randint(1, 256, (40, 12, 12, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    made = ((augment(images, torch.Generator().manual_seed(1)) + 1) * 127.5).round().permute(0, 2, 3, 1)
    mirrored = 0
    for image, found in zip(images.numpy(), made.numpy(), strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), "reflect")
        kept = {}
        for flip in (False, True):
            for top in range(9):
                for left in range(9):
                    crop = padded[top : top + 12, left : left + 12]
                    kept[flip, top, left] = (found == (crop[:, ::-1] if flip else crop)).all(2)
        (flip, *_), same = max(kept.items(), key=lambda item: item[1].sum())
        mirrored += flip
        rows, columns = np.nonzero(~same)
        assert len(rows) <= 64
        assert len(rows) == 0 or (np.ptp(rows) < 8 and np.ptp(columns) < 8)
        assert (found[~same] == 128).all() or (found[~same] == 127).all()
    assert 8 < mirrored < 32


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [learning_rate(step, 100, 0.5) for step in range(100)]
    assert max(rates) == rates[19] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.25)
    assert rates[59] == pytest.approx(0.25)
    assert rates[-1] == 0
    assert math.isfinite(sum(rates))


def sets(n=60, m=50, f=5):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(f, f, generator=generator)
    return torch.randn(n, f, generator=generator) @ mix, torch.randn(m, f, generator=generator) + 0.5


def test_frechet_distance_against_scipy():
    a, b = (x.double() for x in sets())
    first, second = np.cov(a.t().numpy()), np.cov(b.t().numpy())
    root = linalg.sqrtm(first @ second).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    wide = torch.cat([a, torch.zeros(len(a), 3)], 1), torch.cat([b, torch.zeros(len(b), 3)], 1)
    assert frechet_distance(*wide) == pytest.approx(expected, rel=1e-6)  # singular covariances


def test_kernel_distance_against_sums_over_pairs():
    a, b = (x.double().numpy() for x in sets())

    def k(x, y):
        return (x @ y / 5 + 1) ** 3

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    between = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(*map(torch.from_numpy, (a, b))) == pytest.approx(sum(within) - 2 * between, rel=1e-8)


def test_precision_and_recall_against_the_definition():
    real, made = sets(25, 20)

    def share(points, others):
        inside = 0
        for point in points:
            for i, other in enumerate(others):
                radius = sorted((other - o).norm().item() for j, o in enumerate(others) if j != i)[2]
                if (point - other).norm().item() <= radius:
                    inside += 1
                    break
        return inside / len(points)

    assert precision_and_recall(real, made) == pytest.approx((share(made, real), share(real, made)))
    assert precision_and_recall(real, real) == (1, 1)
    assert precision_and_recall(real, made + 1000) == (0, 0)


def test_a_page_of_new_images(classifier, data, tmp_path, monkeypatch):
    """From a tokenizer and priors to the page; what is measured is not measured again."""
    monkeypatch.chdir(tmp_path)
    words = f"train --data {data} --size {SIDE} --model.dim 8 --model.options.codebook_size 8 --training.steps 4"
    assert hybridvq([*words.split(), "--eval-images", "4", "--training.batch_size", "8", "--out", "tokenizer"]) == 0
    small = "--options.width 8 --options.layers 1 --options.heads 2 --training.steps 3 --training.batch_size 8"
    for name, more in (("masked", "--conditional"), ("transformer", "")):
        words = f"train-prior tokenizer --data {data} --prior {name} {more} {small} --out {name}"
        assert hybridvq(words.split()) == 0
    common = ["--classifier", str(classifier), "--data", data, "--count", "20", "--reference", "60", "--out", "page"]
    names = ["masked=masked", "transformer=transformer"]
    new_images([*common, "--priors", *names, "--guidance", "1", "3"])
    page, result = (tmp_path / "page" / name for name in ("README.md", "result.json"))
    first = json.loads(result.read_text())
    assert first["priors"]["masked"]["samples"].keys() == {"1.0", "3.0"}
    assert first["priors"]["transformer"]["samples"].keys() == {"1.0"}
    assert "accuracy" not in first["priors"]["transformer"]["samples"]["1.0"]
    assert first["held_out"]["accuracy"] > 0.9
    assert first["held_out"]["frechet"] < first["priors"]["masked"]["samples"]["1.0"]["frechet"]
    assert page.read_text().count("\n| masked") == 3
    pictures = re.findall(r"\(([\w-]+\.png)\)", page.read_text())
    assert len(pictures) == 6
    assert all((tmp_path / "page" / name).is_file() for name in pictures)
    monkeypatch.setattr(Measure, "__call__", None)
    new_images([*common, "--priors", *names, "--guidance", "1", "3"])
    assert json.loads(result.read_text()) == first
    with pytest.raises(SystemExit, match="measured with another setting"):
        new_images([*common, "--priors", *names, "--seed", "1"])


@pytest.fixture(scope="module")
def tokenizer(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "run"
    words = f"train --data {data} --size {SIDE} --model.dim 8 --model.options.codebook_size 8 --training.steps 20"
    assert hybridvq([*words.split(), "--eval-images", "4", "--training.batch_size", "8", "--out", str(folder)]) == 0
    return folder


def test_a_decoder_for_samples_keeps_the_tokens(tokenizer, classifier, data, sides, tmp_path, monkeypatch):
    """Its features come nearer, it is resumed to the bit, and a prior takes it over."""
    words = [str(tokenizer), "--features", str(classifier), "--data", data, "--steps", "30", "--start", "10"]
    train_decoder([*words, "--rate", "0.003", "--out", str(tmp_path / "whole")])
    before, after = (load_tokenizer(folder) for folder in (tokenizer, tmp_path / "whole"))
    x = EvalBatches(sides[0], 32)[0]
    features = FeatureLoss(load_classifier(classifier)[0])
    with torch.inference_mode():
        assert torch.equal(before.encode(x).codes, after.encode(x).codes)
        far, near = (features(made.decode(made.encode(x)), x).mean() for made in (before, after))
        assert near < 0.9 * far
        assert features(x, x).abs().max() == 0
    original = DecoderRun.learn

    def fail(self, *given):
        if self.step == 17:
            raise KeyboardInterrupt
        return original(self, *given)

    monkeypatch.setattr(DecoderRun, "learn", fail)
    parts = [*words, "--rate", "0.003", "--out", str(tmp_path / "parts"), "--every", "0"]
    with pytest.raises(KeyboardInterrupt):
        train_decoder(parts)
    monkeypatch.setattr(DecoderRun, "learn", original)
    train_decoder(parts)
    assert weight_hash(tmp_path / "parts" / "model") == weight_hash(tmp_path / "whole" / "model")
    small = "--prior masked --options.width 8 --options.layers 1 --options.heads 2 --training.steps 3"
    prior = ["train-prior", str(tokenizer), "--data", data, *small.split(), "--out", str(tmp_path / "prior")]
    assert hybridvq(prior) == 0
    train_decoder([str(tokenizer), "--out", str(tmp_path / "whole"), "--prior", str(tmp_path / "prior")])
    drawn = [sample(folder, 2, seed=3) for folder in (tmp_path / "prior", tmp_path / "whole" / "prior")]
    assert [np.asarray(image).shape for image in drawn[1]] == [(SIDE, SIDE, 3)] * 2
    assert (np.asarray(drawn[0][0]) != np.asarray(drawn[1][0])).any()
    with pytest.raises(SystemExit, match="models the tokens of another tokenizer"):
        train_decoder([str(tmp_path / "whole"), "--out", str(tmp_path / "whole"), "--prior", str(tmp_path / "prior")])


def test_a_prior_for_a_gpu_comes_back_in_parts(tokenizer, data, tmp_path, monkeypatch, capsys):
    """Packed, trained by the clock, joined: a prior of the tokenizer's tokens that draws its classes."""
    for part, split, more in (("train", "train", []), ("test", "test", []), ("mirrored", "train", ["--mirror"])):
        words = ["tokenize", str(tokenizer), "--data", data, "--split", split, "--workers", "1", *more]
        assert hybridvq([*words, "--out", str(tmp_path / "tokens" / part)]) == 0
    packed, parts = str(tmp_path / "tokens.npz"), str(tmp_path / "parts")
    of = ["--tokenizer", str(tokenizer)]
    gpu_prior(["pack", str(tmp_path / "tokens"), *of, "--out", packed])
    monkeypatch.setattr("experiments.gpu.prior.PART", 5000)
    small = ["--options", '{"width": 16, "layers": 1, "heads": 2}', "--batch", "32", "--minutes", "0.01"]
    gpu_prior(["train", packed, *small, "--out", parts])
    assert "128 images" in capsys.readouterr().out
    assert len(list((tmp_path / "parts").glob("weights-*"))) > 1
    for name, start in (("first", []), ("second", ["--start", str(tmp_path / "first")])):
        if start:
            gpu_prior(["train", packed, *small, *start, "--out", parts])
        gpu_prior(["join", parts, *of, "--out", str(tmp_path / name)])
        made = load_prior(tmp_path / name, tokenizer)
        assert (made.classes, made.shape, made.options["width"]) == (2, (4, 4), 16)
        assert torch.equal(made.space.vectors, load_tokenizer(tokenizer).quantizer.space().vectors)
        assert len(sample(tmp_path / name, 1, labels=["all"])) == 2
    first, second = (load_prior(tmp_path / name).state_dict()["row"] for name in ("first", "second"))
    assert not torch.equal(first, second)
