import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from hybridvq import ConfigError, ModelError, Prior, Tokenizer, build_prior, load_prior
from hybridvq.priors import PRIORS, save_prior
from hybridvq.tokenizer import weight_hash
from priors.spaces import CASES, prior, space, tokens


@pytest.mark.parametrize(("name", "stages", "kind", "head"), CASES)
@torch.no_grad()
def test_saving_and_loading_is_exact(tmp_path, name, stages, kind, head):
    of = space(kind, stages)
    classes = None if name == "static" else 3
    made, given = prior(name, of, head=head, classes=classes), tokens(of)
    save_prior(made, tmp_path / "run" / "model", "a" * 64)
    loaded = load_prior(tmp_path / "run")
    assert not loaded.training
    assert (type(loaded), loaded.shape, loaded.classes, loaded.options) == (type(made), (3, 4), classes, made.options)
    assert torch.equal(loaded.log_prob(given), made.log_prob(given))
    assert torch.equal(loaded.space.vectors, of.vectors)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model"]
    save_prior(loaded, tmp_path / "run" / "model", "a" * 64)
    assert sorted(path.name for path in (tmp_path / "run" / "model").iterdir()) == ["config.json", "model.safetensors"]


@pytest.fixture
def saved(tmp_path):
    Tokenizer(dim=8).save_pretrained(tmp_path / "tokenizer")
    Tokenizer(dim=8).save_pretrained(tmp_path / "other")
    save_prior(prior("transformer", space()), tmp_path / "prior", weight_hash(tmp_path / "tokenizer"))
    return tmp_path / "prior"


def test_the_tokenizer_is_checked(saved):
    load_prior(saved, saved.parent / "tokenizer")
    with pytest.raises(ModelError, match=rf"{saved} models the tokens of a tokenizer .* not of .*other; give that tok"):
        load_prior(saved, saved.parent / "other")


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_saved_prior_knows_whether_it_was_trained_without_labels_too(tmp_path, share):
    save_prior(prior("transformer", space(), classes=2, label_dropout=share), tmp_path / "prior", "a" * 64)
    assert load_prior(tmp_path / "prior").knows_unlabeled == (share > 0)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_and_missing_files(saved, name):
    whole = (saved / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\xff" * len(whole)):
        (saved / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{saved} does not hold a prior that this version can load") as caught:
            load_prior(saved)
        assert "\n" not in str(caught.value)
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"{saved} holds no {name}; give a folder that `hybridvq train-prior` wrote"):
        load_prior(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2; this version reads 1"),
        ({"prior": "nope"}, "no prior named 'nope'"),
        ({"options": {"width": 32, "layers": 2, "heads": 2}}, "because of options.width 32"),
        ({"options": {"width": 10**6, "heads": 2}}, "because of options.width 1000000"),
        ({"options": {"width": 16, "heads": 2, "layers": 10**9}}, "options.layers is 1000000000, but model.safetens"),
        ({"classes": 10**6}, "lacks label_embedding.weight"),
        ({"shape": [10**9, 4]}, "shape is 1000000000; it must be at most 4,096"),
        ({"shape": [3, True]}, "shape is True; it must be a whole number"),
        ({"shape": [3]}, "not enough values"),
        ({"color": 1}, "color"),
        ({"space": {}}, "gain"),
    ],
)
def test_configs_that_cannot_be_used(saved, change, message):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=f"does not hold a prior that this version can load .*{message}"):
        load_prior(saved)


@pytest.mark.parametrize(
    ("key", "value"), [("stages", 10**9), ("codebook_size", 10**9), ("levels", 10**9), ("dim", 10**9)]
)
def test_a_space_that_does_not_fit_the_weights(tmp_path, key, value):
    save_prior(prior("transformer", space("levels", 2)), tmp_path, "a" * 64)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["space"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=f"space.{key} .*{value}"):
        load_prior(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, '{"format": 1, "format": 1}', "NaN"])
def test_configs_that_are_no_configs(saved, text):
    (saved / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="does not hold a prior that this version can load"):
        load_prior(saved)


def test_weights_that_are_not_finite(saved):
    state = load_file(saved / "model.safetensors")
    state["vectors"][0, 0] = torch.nan
    save_file(state, saved / "model.safetensors")
    with pytest.raises(ModelError, match=r"vectors of model\.safetensors holds a number that is not finite"):
        load_prior(saved)


def test_a_tokenizer_is_no_prior(saved):
    with pytest.raises(ModelError, match=r"does not hold a prior .*its config\.json names no prior"):
        load_prior(saved.parent / "tokenizer")


def test_a_failed_write_leaves_the_old_prior(saved, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    before = (saved / "model.safetensors").read_bytes()
    monkeypatch.setattr("hybridvq.priors.saving.save", full)
    with pytest.raises(OSError, match="no space left"):
        save_prior(prior("static", space()), saved, "b" * 64)
    assert (saved / "model.safetensors").read_bytes() == before
    assert not list(saved.parent.glob("*.partial"))


def test_a_prior_of_ones_own_cannot_be_saved(tmp_path):
    class Own(PRIORS["static"]):
        pass

    with pytest.raises(ConfigError, match="a Own cannot be saved; it is none of the priors static, pixelcnn, trans"):
        save_prior(Own(space(), (3, 4)), tmp_path / "prior", "a" * 64)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "transfomer",
            {},
            r"no prior named 'transfomer' \(did you mean transformer\?\); choose one of static, pixelcnn",
        ),
        (
            "pixelcnn",
            {"heads": 3},
            "the pixelcnn prior has no option 'heads'; it takes gain, components, width, layers",
        ),
        ("transformer", {"width": "x"}, "width is 'x'; it must be a whole number"),
        ("transformer", {"layers": 2.5}, "layers is 2.5; it must be a whole number"),
        ("static", {"gain": "mixture"}, "static tables hold no 'mixture'"),
    ],
)
def test_wrong_names_and_options(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_prior(name, space(), (3, 4), None, options)


def test_options_make_the_prior_again():
    made = build_prior("transformer", space(), (3, 4), 2, {"width": 24, "gain": "gaussian"})
    assert isinstance(made, Prior)
    assert made.options == {
        "gain": "gaussian", "components": 8, "width": 24, "layers": 6, "heads": 6, "dropout": 0.0, "label_dropout": 0.1
    }  # fmt: skip
