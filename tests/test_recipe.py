import os
import subprocess
import sys

import pytest
import yaml

from hybridvq import ConfigError, Tokenizer, load_recipe
from hybridvq.recipe import BASE, RECIPES, recipe_names


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return written


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_and_describes_itself(name):
    recipe = load_recipe(name, {"model.dim": 8})
    assert recipe.name == name
    assert recipe.title != name
    assert recipe.description.endswith(".")
    Tokenizer(recipe.model.dim, recipe.model.downsampling, recipe.model.quantizer, recipe.model.options)


def test_titles_differ():
    assert len({load_recipe(name).title for name in recipe_names()}) == len(recipe_names())


def test_a_recipe_states_only_its_difference():
    base = yaml.safe_load(BASE.read_text())
    for name in recipe_names():
        own = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        for group in ("model", "training"):
            assert not [key for key, value in own.get(group, {}).items() if base[group].get(key, "none") == value]


def test_values_of_base_of_the_file_and_of_overrides(write):
    path = write("model: {dim: 16, options: {beta: 1.0, decay: 0.5}}\ntraining: {steps: 7}\n")
    recipe = load_recipe(path, {"training.steps": 9, "model.options.beta": 0.5})
    assert (recipe.model.dim, recipe.model.downsampling) == (16, 4)
    assert recipe.model.options == {"beta": 0.5, "decay": 0.5}
    assert (recipe.training.steps, recipe.training.batch_size) == (9, 128)
    assert (recipe.name, recipe.title) == ("mine", "mine")


@pytest.mark.parametrize("value", [None, True, 3, 1e-5, 1e-3, "ema", [1, 2], {"a": 1}])
def test_overrides_keep_their_type(value):
    options = load_recipe("vector", {"model.options.x": value}).model.options
    assert options == {"x": value}
    assert type(options["x"]) is type(value)


def test_overrides_as_words():
    recipe = load_recipe("vector", ["--model.dim=9", "--title", "A: b [c"])
    assert (recipe.model.dim, recipe.title) == (9, "A: b [c")


def test_small_numbers_without_a_point(write):
    """YAML 1.1 reads 1e-5 as text; a recipe means the number."""
    path = write("model: {quantizer: gaussian, options: {kl_weight: 1e-5}}\ntraining: {learning_rate: 2e-4}\n")
    recipe = load_recipe(path)
    assert recipe.model.options == {"kl_weight": 1e-5}
    assert recipe.training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bogus: 1", "there is no key bogus"),
        ("name: x", "there is no key name"),
        ("model: {dimm: 8}", r"there is no key model\.dimm \(did you mean model\.dim\?\)"),
        ("training: {step: 8}", r"no key training\.step \(did you mean training\.steps\?\)"),
        ("model: {dim: [1]}", r"model\.dim: '\[1\]' is not of type int"),
        ("model: {dim: true}", r"model\.dim: 'True' is not of type int"),
        ("training: {steps: 1.5}", r"training\.steps: '1.5' is not of type int"),
        ("model: {options: 3}", r"model\.options: '3' is not of type dict"),
        ("model:", "model"),
        ("training: {batch_size: 0}", r"training\.batch_size is 0; it must be at least 1"),
        ("model: {dim: 8\n", "not readable YAML .* line 2"),
        ("- a\n- b", "it holds a list; it must hold keys and their values"),
        ("", "holds nothing"),
        (b"\xff\xfe\x00", "not readable YAML"),
        ("a: 1\n\tb: 3", "not readable YAML"),
        ("title: a\ntitle: b", "it says 'title' twice"),
        ("model: {options: {beta: 1, beta: 2}}", "it says 'beta' twice"),
        ("model: {options: " + "[" * 3000, "it is nested too deeply"),
        ("model: {options: " + "{a: " * 3000, "it is nested too deeply"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ntitle: *b", "references are not read; .* line 2"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}", "references are not read"),
        ("model: &m {options: *m}", "references are not read"),
        ("? [a]\n: 1", "a key must be a word"),
        ("training: {steps: " + "9" * 5000 + "}", r"steps"),
    ],
)
def test_wrong_files(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"recipe {path}")
    assert "\n" not in str(caught.value)
    assert "Parser key" not in str(caught.value)


def test_a_recipe_is_utf8_in_any_locale(write):
    """In a fresh process, because Python asks for the locale once."""
    path = write("title: Größe\n")
    code = f"from hybridvq import load_recipe; print(ascii(load_recipe({path!r}).title))"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "'Gr\\xf6\\xdfe'\n", done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"bogus": 1}, "there is no option --bogus=1"),
        ({"model.dimm": 1}, r"there is no option --model\.dimm=1"),
        ({"training.step": 7}, r"there is no option --training\.step=7"),
        ({"model.dim": "x"}, r"model\.dim: 'x' is not of type int"),
        ({"training.steps": 0}, r"training\.steps is 0"),
    ],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("vector", overrides)


def test_missing_recipes_name_those_there_are(tmp_path):
    for name in ("nope", str(tmp_path), "base/"):
        with pytest.raises(ConfigError, match=rf"there is no recipe '{name}'; give a YAML file or one of .*vector"):
            load_recipe(name)
