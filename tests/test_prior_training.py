"""Training priors: what is learned, kept, resumed and refused."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from hybridvq import (
    ConfigError,
    DataError,
    ModelError,
    Tokenizer,
    build_prior,
    load_prior,
    load_tokenizer,
    load_tokens,
    tokenize,
)
from hybridvq.data import TrainBatches
from hybridvq.data.batches import to_tensor
from hybridvq.priors import bits_per_position
from hybridvq.settings import PriorSettings, PriorTrainingSettings
from hybridvq.tokenizer import weight_hash
from hybridvq.training import fit_prior
from hybridvq.training.prior import PriorTraining, measure
from hybridvq.training.tokens import TokenArrays, TokenBatches, split
from hybridvq.writing import sole_writer
from replicas import in_two
from runs import CHECKPOINT, read_checkpoint, weights

SMALL = {
    "transformer": {"width": 16, "layers": 1, "heads": 2},
    "masked": {"width": 16, "layers": 1, "heads": 2},
    "pixelcnn": {"width": 8, "layers": 2},
    "static": {},
}


def settings(prior="transformer", conditional=False, **training):
    schedule = {"steps": 20, "batch_size": 8, "eval_every": 5, "checkpoint_every": 10, "precision": "32-true"}
    return PriorSettings(prior, dict(SMALL[prior]), conditional, PriorTrainingSettings(**(schedule | training)))


def make_tokens(folder, name):
    """A tokenizer whose codes start from data, and the tokens of both splits."""
    part = tiny.model(name)
    torch.manual_seed(0)
    tokenizer = Tokenizer(part.dim, part.downsampling, part.quantizer, part.options)
    for step in range(4):  # directions and levels start from data, and follow it
        tokenizer.train()(TrainBatches(tiny.images(), 32, 4, seed=0)[step])
    tokenizer.save_pretrained(folder / "model")
    for split_name in ("train", "test"):
        tokenize(folder / "model", tiny.images(split_name), folder / split_name, workers=1)
    return folder


@pytest.fixture(scope="module", params=["vector", "projected", "gain-shape"])
def tokens(request, tmp_path_factory):
    return make_tokens(tmp_path_factory.mktemp("tokens"), request.param)


@pytest.fixture(scope="module")
def gain_shape(tmp_path_factory):
    return make_tokens(tmp_path_factory.mktemp("tokens"), "gain-shape")


def train(tokens, folder, given=None, **options):
    sets = load_tokens(tokens / "train"), load_tokens(tokens / "test")
    return fit_prior(given or settings(), tokens / "model", *sets, folder, **({"progress": False} | options))


@pytest.mark.parametrize("name", ["static", "pixelcnn", "transformer", "masked"])
def test_every_prior_learns_every_kind_of_token(tokens, tmp_path, name):
    _, history = train(tokens, tmp_path / "run", settings(name, learning_rate=1e-2))
    loaded = load_prior(tmp_path / "run", tokens / "model")
    held_out = TokenArrays(load_tokens(tokens / "test"), limit=2048)
    best = min(test["bits"] for test in history.tests)
    assert bits_per_position(loaded, map(split, held_out.in_order(64))).total == pytest.approx(best, abs=1e-4)
    assert history.tests[-1]["code_bits"] < math.log2(loaded.codebook_size)
    assert load_tokenizer(tmp_path / "run" / "model" / "tokenizer").dim == 8
    assert weight_hash(tmp_path / "run" / "model" / "tokenizer") == weight_hash(tokens / "model")


def test_the_first_loss_is_that_of_an_independent_sum(gain_shape, tmp_path):
    prior, history = train(gain_shape, tmp_path / "run", settings(steps=1, learning_rate=1e-9))
    arrays = TokenArrays(load_tokens(gain_shape / "train"))
    batch, label = split(TokenBatches(arrays, 8, 1, seed=0)[0])
    assert label is None
    nats = -prior.log_prob(batch).detach().sum() / batch.codes.numel()
    assert history.train_bits[0] == pytest.approx(float(nats) / math.log(2), rel=1e-4)


def test_gains_are_learned_in_the_units_of_the_training_set(tokens, tmp_path):
    prior, _ = train(tokens, tmp_path / "run", settings(steps=1, learning_rate=1e-9))
    gains = TokenArrays(load_tokens(tokens / "train")).batch(slice(None)).get("gains")
    if gains is None:
        assert prior.gain_head is None
        return
    values = prior.gain_head.values(gains, 0).double()
    assert prior.gain_head.mean.item() == pytest.approx(values.mean().item(), rel=1e-5)
    assert prior.gain_head.deviation.item() == pytest.approx(values.std(correction=0).item() or 1.0, rel=1e-4)


NO_DECAY = {
    "transformer": r"start|row|column|stage|.*\.bias|.*norm\.weight",
    "masked": r"start|row|column|stage|.*\.bias|.*norm\.weight",
    "pixelcnn": r".*\.bias",
}


@pytest.mark.parametrize("name", NO_DECAY)
def test_weights_decay_and_places_biases_and_norms_do_not(gain_shape, name):
    arrays = TokenArrays(load_tokens(gain_shape / "train"))
    prior = build_prior(name, load_tokenizer(gain_shape / "model").quantizer.space(), (4, 4), 3, SMALL[name])
    module = PriorTraining(prior, settings(weight_decay=0.25).training, arrays, 0)
    groups = module.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in prior.named_parameters()}
    decay = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay.keys() == set(names.values())
    for key, value in decay.items():
        assert value == (0.0 if re.fullmatch(NO_DECAY[name], key) else 0.25), key
    tables = {"embedding.code.weight", "label_embedding.weight", "code_output.free.weight", "gain_output.output.weight"}
    assert tables | {"gain_output.bias", "code_output.bias"} <= decay.keys()


@pytest.mark.parametrize(("name", "average"), [("transformer", 0.0), ("masked", 0.9)])
def test_a_resumed_run_ends_as_if_it_had_not_stopped(gain_shape, tmp_path, monkeypatch, name, average):
    """Dropout, masks and averages included."""
    given = settings(name, average=average)
    given.options["dropout"] = 0.2
    train(gain_shape, tmp_path / "whole", given)
    from hybridvq.training.prior import PriorTraining

    original = PriorTraining.training_step

    def fail(self, batch, batch_idx):
        if self.global_step == 13:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(PriorTraining, "training_step", fail)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted at step 13; add --resume"):
        train(gain_shape, tmp_path / "parts", given)
    monkeypatch.setattr(PriorTraining, "training_step", original)
    assert read_checkpoint(tmp_path / "parts")["global_step"] == 10
    train(gain_shape, tmp_path / "parts", given, resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    _, history = train(gain_shape, tmp_path / "parts", given, resume=True)  # finished: trains nothing
    assert len(history.train_bits) == 20


def test_it_stops_when_it_gets_worse_and_keeps_the_best(gain_shape, tmp_path):
    given = settings(steps=400, eval_every=2, patience=2, learning_rate=0.3, warmup=0.0)
    prior, history = train(gain_shape, tmp_path / "run", given)
    assert history.stopped
    steps = [test["step"] for test in history.tests]
    assert steps[-1] < 400
    assert history.best_step == steps[-3]
    best = min(history.tests, key=lambda test: test["bits"])
    assert best["step"] == history.best_step
    held_out = TokenArrays(load_tokens(gain_shape / "test"), limit=2048)
    for kept in (prior, load_prior(tmp_path / "run")):
        assert bits_per_position(kept, map(split, held_out.in_order(64))).total == pytest.approx(best["bits"], rel=1e-5)
    _, again = train(gain_shape, tmp_path / "run", given, resume=True)
    assert [test["step"] for test in again.tests] == steps


def test_batches_show_every_image_once_an_epoch(gain_shape):
    arrays = TokenArrays(load_tokens(gain_shape / "train"), limit=24)
    seen = [TokenBatches(arrays, 8, 3, seed=1)[step]["codes"] for step in range(3)]
    rows = sorted(row.flatten().tolist() for batch in seen for row in batch)
    assert rows == sorted(row.flatten().tolist() for row in arrays.batch(slice(None))["codes"])
    parts = [TokenBatches(arrays, 8, 3, 1, rank, 2)[0]["codes"] for rank in range(2)]
    assert torch.equal(torch.cat(parts), seen[0])


def train_as_rank(rank, tokens, folder):
    prior, history = train(tokens, folder / "run")
    torch.save((prior.state_dict(), history.train_bits, history.tests), folder / f"{rank}.pt")


def test_two_processes_train_as_one(gain_shape, tmp_path):
    assert in_two(train_as_rank, gain_shape, tmp_path) == [0, 0]
    (weights, bits, tests), (others, *_) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone, history = train(gain_shape, tmp_path / "alone")
    assert bits == pytest.approx(history.train_bits, rel=1e-4)
    assert [test["bits"] for test in tests] == pytest.approx([test["bits"] for test in history.tests], rel=1e-4)
    for name, value in alone.state_dict().items():
        assert torch.equal(weights[name], others[name])
        torch.testing.assert_close(weights[name], value, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["static", "transformer"])
def test_a_second_run_in_one_folder_is_refused(gain_shape, tmp_path, name):
    with sole_writer(tmp_path / "run"), pytest.raises(ConfigError, match="run is being written by another process"):
        train(gain_shape, tmp_path / "run", settings(name))
    assert not (tmp_path / "run").exists()


def test_an_empty_set_of_tokens(gain_shape):
    tokens = load_tokens(gain_shape / "train")
    tokens.manifest = replace(tokens.manifest, data=tokens.manifest.data | {"images": 0})
    with pytest.raises(DataError, match="holds no tokens; a prior needs some to learn from"):
        TokenArrays(tokens)


def test_refusals(gain_shape, tmp_path):
    with pytest.raises(ConfigError, match="no labels"):
        train(gain_shape, tmp_path / "run", settings(conditional=True))
    other = make_tokens(tmp_path / "other", "vector")
    sets = load_tokens(gain_shape / "train"), load_tokens(gain_shape / "test")
    with pytest.raises(ModelError, match="holds the tokens of a model whose weights"):
        fit_prior(settings(), other / "model", *sets, tmp_path / "run")
    train(gain_shape, tmp_path / "run")
    with pytest.raises(ConfigError, match="add --resume"):
        train(gain_shape, tmp_path / "run")
    with pytest.raises(ModelError, match=r"see training\.batch_size"):
        train(gain_shape, tmp_path / "run", settings(batch_size=4), resume=True)
    with pytest.raises(ConfigError, match="no prior named"):
        train(gain_shape, tmp_path / "x", PriorSettings("markov"))
    assert not (tmp_path / "x").exists()
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert written["tokenizer"] == weight_hash(gain_shape / "model")
    assert (tmp_path / "run" / CHECKPOINT).is_file()


def test_mirror_images_are_learned_too(gain_shape, tmp_path):
    """Tokens of a mirrored set are those of its mirrored pixels, and a run with them learns both."""
    images, model = tiny.images(), load_tokenizer(gain_shape / "model")
    tokenize(gain_shape / "model", images, tmp_path / "mirrored", workers=1, mirror=True)
    mirrored = load_tokens(tmp_path / "mirrored")
    crops = np.stack([images.crop(i, None)[:, ::-1] for i in range(5)])
    with torch.inference_mode():
        expected = model.encode(to_tensor(crops))
    assert torch.equal(mirrored[:5].codes, expected.codes)
    assert not torch.equal(mirrored[:5].codes, load_tokens(gain_shape / "train")[:5].codes)
    seen = []

    class Seen(TokenBatches):
        def __init__(self, tokens, *rest):
            seen.append(tokens.arrays["codes"])
            super().__init__(tokens, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridvq.training.prior.TokenBatches", Seen)
        train(gain_shape, tmp_path / "run", mirrored=mirrored)
    both = [load_tokens(gain_shape / "train")[:].codes, mirrored[:].codes]
    assert np.array_equal(seen[0], torch.cat(both).numpy())
    with pytest.raises(ModelError, match="another recipe, seed or images"):
        train(gain_shape, tmp_path / "run", resume=True)


def test_what_is_reported_had_no_say(gain_shape, tmp_path):
    """The first held-out images choose the weights, the others are measured once, with those."""
    prior, history = train(gain_shape, tmp_path / "run", settings(learning_rate=1e-2), eval_images=5)
    tokens = load_tokens(gain_shape / "test")
    others = TokenArrays(tokens, start=5)
    assert history.reported["images"] == len(others) == len(tokens) - 5
    assert np.array_equal(others.arrays["codes"], tokens[5:].codes.numpy())
    bits = bits_per_position(prior, map(split, others.in_order(64)))
    assert history.reported["bits"] == pytest.approx(bits.total, abs=1e-6)
    assert not train(gain_shape, tmp_path / "all", eval_images=10**6)[1].reported


def test_averaged_weights_are_measured_and_kept(gain_shape, tmp_path):
    """The mean of the weights after each step while it is young, against the same summed here."""
    steps, original = [], PriorTraining.training_step

    def note(self, batch, batch_idx):
        steps.append({name: value.clone() for name, value in self.prior.state_dict().items()})
        return original(self, batch, batch_idx)

    given = settings(average=0.9, steps=5, eval_every=5, weight_decay=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PriorTraining, "training_step", note)
        prior, history = train(gain_shape, tmp_path / "run", given)
    last = read_checkpoint(tmp_path / "run")["state_dict"]
    seen = [*steps[1:], {name: last[f"prior.{name}"] for name in steps[0]}]
    name = "blocks.0.expand.weight"
    expected = seen[0][name]
    for count, weights_then in enumerate(seen[1:], 1):
        expected = expected + (weights_then[name] - expected) * max(0.1, 9 / (10 + count))
    torch.testing.assert_close(prior.state_dict()[name], expected)
    held_out = TokenArrays(load_tokens(gain_shape / "test"), limit=2048)
    assert history.tests[-1]["bits"] == pytest.approx(measure(prior, held_out)["bits"])
