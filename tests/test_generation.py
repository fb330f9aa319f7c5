"""New images from a prior: what is drawn, kept, written and refused."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import logistic

import tiny
from hybridvq import ConfigError, DataError, load_prior, load_tokenizer
from hybridvq.cli import main
from hybridvq.generation import (
    GAP,
    continue_image,
    continue_picture,
    generate,
    kept_positions,
    picture_grid,
    write_images,
)
from hybridvq.quantizers import Tokens
from hybridvq.settings import ModelSettings, Recipe, SamplingSettings
from hybridvq.training import train as fit_tokenizer
from hybridvq.writing import sole_writer

SMALL = [
    "--options.width",
    "16",
    "--options.layers",
    "1",
    "--options.heads",
    "2",
    "--training.steps",
    "6",
    "--training.batch_size",
    "8",
]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A folder of 16x16 images in two classes: dark and light."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for name, level in (("dark", 0), ("light", 160)):
            for i in range(count):
                path = folder / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(level, level + 90, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, classes):
    out = tmp_path_factory.mktemp("model") / "run"
    words = ["--recipe", "gain-shape", "--data", str(classes), "--training.steps", "20", "--eval-images", "4"]
    assert main(["train", *words, *tiny.COMMAND_LINE, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def prior(tmp_path_factory, classes, model):
    out = tmp_path_factory.mktemp("prior") / "run"
    words = [str(model), "--data", str(classes), "--prior", "transformer", "--conditional", *SMALL]
    assert main(["train-prior", *words, "--out", str(out)]) == 0
    return out


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sample_writes_what_its_seed_says(prior, tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["sample", str(prior), "--count", "3", "--seed", str(seed), "--out", str(tmp_path / name)]) == 0
    assert set(files(tmp_path / "a")) == {"000.png", "001.png", "002.png", "grid.png"}
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")
    with Image.open(tmp_path / "a" / "001.png") as image:
        assert image.size == (16, 16)
    assert "3 images, seed 2" in capsys.readouterr().out


def test_sample_by_class(prior, tmp_path):
    words = ["sample", str(prior), "--count", "2", "--labels", "light", "0", "--out", str(tmp_path)]
    assert main([*words, "--guidance", "2", "--temperature", "0.9", "--top-k", "5"]) == 0
    names = {"class001-000.png", "class001-001.png", "class000-000.png", "class000-001.png", "grid.png"}
    assert set(files(tmp_path)) == names


def test_a_sheet_of_all_classes_has_a_named_row_for_each(prior, tmp_path):
    """Named rows hold what naming each class draws, with the names beside them."""
    common = ["sample", str(prior), "--count", "3"]
    assert main([*common, "--labels", "all", "--out", str(tmp_path / "all")]) == 0
    assert main([*common, "--labels", "dark", "light", "--out", str(tmp_path / "both")]) == 0
    assert files(tmp_path / "all") == files(tmp_path / "both")
    sheet = np.asarray(Image.open(tmp_path / "all" / "grid.png"))
    images = [np.asarray(Image.open(tmp_path / "all" / f"class00{c}-00{i}.png")) for c in (0, 1) for i in range(3)]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
    plain = picture_grid(x, 3)
    assert np.array_equal(sheet[:, -plain.shape[1] :], plain)
    margin = sheet[:, : -plain.shape[1]]
    dark, light = (margin[GAP + i * (16 + GAP) :][:16] for i in (0, 1))
    assert (dark < 100).any()
    assert (light < 100).any()
    assert (dark != light).any()
    assert (margin[:GAP] == 255).all()


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory, classes):
    """A hybrid tokenizer of codes for 8x8 pixels, and a prior over them."""
    folder = tmp_path_factory.mktemp("hybrid")
    options = {"groups": 2, "codebook_size": 4, "code_dim": 2, "width": 8, "aside_steps": 2}
    recipe = Recipe(model=ModelSettings(8, 2, "hybrid", options), training=tiny.recipe("hybrid", steps=6).training)
    fit_tokenizer(recipe, str(classes), None, folder / "run", size=16, progress=False)
    words = [str(folder / "run"), "--data", str(classes), "--prior", "masked", "--conditional", "--mirror", *SMALL]
    assert main(["train-prior", *words, "--out", str(folder / "prior")]) == 0
    return folder


def test_details_of_a_hybrid_model_are_drawn_from_what_its_codes_say(hybrid, tmp_path):
    """Codes by the prior; the share of each coefficient is that of the logistic distribution of its scale."""
    assert load_prior(hybrid / "prior").shape == (2, 2)
    for details in ("0", "1", "1"):
        words = ["sample", str(hybrid / "prior"), "--labels", "all", "--count", "2", "--details", details]
        assert main([*words, "--out", str(tmp_path / f"{details}-{len(list(tmp_path.iterdir()))}")]) == 0
    plain, drawn, again = (files(folder) for folder in sorted(tmp_path.iterdir()))
    assert drawn == again
    assert plain.keys() == drawn.keys()
    assert plain != drawn
    quantizer = load_tokenizer(hybrid / "run").quantizer
    codes = torch.zeros(400, 2, 2, 2, dtype=torch.long)
    with torch.inference_mode():
        tokens = quantizer.draw_details(Tokens(codes=codes), 0.7, torch.Generator().manual_seed(0))
        mean, log_scale = quantizer.predict(Tokens(codes=codes[:1]))
        assert torch.equal(quantizer.draw_details(Tokens(codes=codes[:1]), 0.0, None).coefficients, 0 * mean.int())
    quantizer.space().check(tokens)
    scale = 0.7 * log_scale[0].double().exp().numpy()
    zeros = logistic.cdf(0.5 / scale) - logistic.cdf(-0.5 / scale)
    found = (tokens.coefficients == 0).double().mean(0).numpy()
    assert found.mean() == pytest.approx(zeros.mean(), abs=4 * 0.5 / found.size**0.5 / 20)


def test_a_hybrid_picture_is_continued(hybrid, classes, tmp_path):
    picture = classes / "test" / "dark" / "0.png"
    words = ["sample", str(hybrid / "prior"), "--count", "2", "--complete", str(picture), "--out", str(tmp_path)]
    assert main([*words, "--labels", "dark"]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (38, 38)


@pytest.mark.parametrize("keep", ["top", "left", "0.5"])
def test_a_picture_is_continued(prior, classes, tmp_path, keep):
    picture = classes / "test" / "dark" / "0.png"
    words = ["sample", str(prior), "--count", "2", "--complete", str(picture), "--keep", keep, "--out", str(tmp_path)]
    assert main(words) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (38, 38)  # what is kept, and two images


def test_kept_tokens_are_those_of_the_picture(prior, classes):
    tokenizer, drawn = load_tokenizer(prior / "model" / "tokenizer"), load_prior(prior)
    given = continue_picture(classes / "test" / "dark" / "0.png", "top", tokenizer, (4, 4))
    tokens = drawn.sample(3, (4, 4), given=given.tokens, keep=given.keep)
    assert torch.equal(tokens.codes[:, :, :2], given.tokens.codes[:, :, :2].expand(3, -1, -1, -1))
    images = generate(drawn, tokenizer, [None] * 3, (4, 4), SamplingSettings(), 0, given)
    assert images.shape == (3, 3, 16, 16)


def test_a_picture_that_is_too_long_or_cut_off_is_refused(prior, tmp_path):
    tokenizer = load_tokenizer(prior / "model" / "tokenizer")
    Image.new("L", (500, 1)).save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"the image cannot be continued \(500x1 pixels, .*\); give another one"):
        continue_picture(tmp_path / "long.png", "top", tokenizer, (4, 4))
    Image.effect_noise((64, 64), 90).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(DataError, match="truncated"):
        continue_image(image, "top", tokenizer, (4, 4))


def test_which_positions_are_kept():
    assert kept_positions("top", (4, 3)).tolist() == [[True] * 3] * 2 + [[False] * 3] * 2
    assert kept_positions("left", (2, 4)).tolist() == [[True, True, False, False]] * 2
    assert kept_positions(0.25, (2, 4)).tolist() == [[True, True, False, False], [False] * 4]
    for keep, shape in (("top", (1, 4)), ("left", (4, 1)), (1.5, (4, 4)), (0.01, (4, 4))):
        with pytest.raises(ConfigError, match="leaves nothing to keep or nothing to draw"):
            kept_positions(keep, shape)


@pytest.mark.parametrize("keep", ["left", "0.5"])
def test_what_is_kept_wants_a_picture(prior, tmp_path, capsys, keep):
    assert main(["sample", str(prior), "--keep", keep, "--out", str(tmp_path / "out")]) == 2
    assert "is of a picture to continue; give complete with it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_at_once_do_not_mix_their_pictures(tmp_path):
    with sole_writer(tmp_path / "out"), pytest.raises(ConfigError, match="out is being written by another process"):
        write_images(torch.zeros(1, 3, 4, 4), ["000"], np.zeros((4, 4, 3), np.uint8), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_grid_shows_every_image_in_order():
    images = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 4, 4)
    grid = picture_grid(images, 3)
    assert grid.shape == (2 * 6 + 2, 3 * 6 + 2, 3)
    assert [int(grid[3 + 6 * (i // 3), 3 + 6 * (i % 3), 0]) for i in range(6)] == [0, 64, 128, 191, 255, 255]


def test_tokens_made_before_need_no_images(model, classes, tmp_path):
    for split in ("train", "test"):
        words = ["tokenize", str(model), "--data", str(classes), "--split", split, "--workers", "1"]
        assert main([*words, "--out", str(tmp_path / "tokens" / split)]) == 0
    words = ["train-prior", str(model), "--tokens", str(tmp_path / "tokens"), "--prior", "static"]
    assert main([*words, "--data", "nowhere", "--out", str(tmp_path / "run")]) == 0
    assert load_prior(tmp_path / "run", model).codebook_size == 16


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--labels", "purple"], "knows no class 'purple'; it has 2, by name or number, or all: dark, light"),
        (["--labels", "2"], "knows no class '2'"),
        (["--shape", "9", "9"], "the grid is 9x9, and this prior was built for at most 4x4"),
        (["--count", "0"], "count is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--top-p", "1.5"], "top_p is 1.5"),
        (["--guidance", "3"], "guidance is 3.0, but there is no label"),
        (["--labels", "all", "dark"], "knows no class 'all'"),
        (["--passes", "8"], "passes is 8, but this prior draws one code after another; leave it out"),
        (["--details", "0.5"], "details is 0.5, but these tokens have no coefficients to draw; leave it out"),
        (["--details", "-1"], "details is -1.0; it must be a number from 0"),
        (["--noise", "0"], "noise is 0.0, but this prior draws one code after another; leave it out"),
        (["--complete", "missing.png"], "there is no file or folder missing.png; give image files"),
    ],
)
def test_refusals(prior, tmp_path, capsys, words, sentence):
    assert main(["sample", str(prior), *words, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert re.fullmatch(r"hybridvq: [^\n]+\n", err)
    assert not (tmp_path / "out").exists()


def test_guidance_needs_label_dropout(prior, tmp_path, capsys):
    shutil.copytree(prior, tmp_path / "prior")
    path = tmp_path / "prior" / "model" / "config.json"
    config = json.loads(path.read_text())
    config["options"]["label_dropout"] = 0.0
    path.write_text(json.dumps(config))
    words = ["sample", str(tmp_path / "prior"), "--count", "1", "--out", str(tmp_path / "out")]
    assert main([*words, "--labels", "dark", "--guidance", "2"]) == 2
    assert "guidance is 2.0, but this prior was trained without label dropout" in capsys.readouterr().err
    assert main(words) == 2
    assert "knows no images without a label; give label" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--labels", "dark"]) == 0


def test_a_prior_refuses_another_tokenizer(prior, tmp_path, capsys, classes):
    other = tmp_path / "other"
    words = ["--recipe", "vector", "--data", str(classes), "--training.steps", "2", "--eval-images", "4"]
    assert main(["train", *words, *tiny.COMMAND_LINE, "--out", str(other)]) == 0
    assert main(["sample", str(prior), "--model", str(other), "--out", str(tmp_path / "out")]) == 2
    assert "models the tokens of a tokenizer whose weights have SHA-256" in capsys.readouterr().err


def test_labels_need_a_conditional_prior(model, classes, tmp_path, capsys):
    words = ["train-prior", str(model), "--data", str(classes), "--prior", "static", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert main(["sample", str(tmp_path / "run"), "--labels", "dark", "--out", str(tmp_path / "out")]) == 2
    assert "knows no classes; leave out --labels, or train it with --conditional" in capsys.readouterr().err
