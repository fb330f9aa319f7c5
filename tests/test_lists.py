"""`hybridvq models` and `hybridvq recipes`."""

import json

from hybridvq.cli import main
from hybridvq.pretrained import pretrained_folder, pretrained_names
from hybridvq.recipe import load_recipe, recipe_names
from hybridvq.tokenizer import Tokenizer


def test_models_are_listed_with_a_line_and_a_size(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == pretrained_names()
    assert lines[2] == "photos-gain-shape  2.4 MB  Gain-shape for photographs, f=8"
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == pretrained_names()
    for row in rows:
        folder = pretrained_folder(row["name"])
        assert row["folder"] == str(folder)
        assert row["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert row["summary"]


def test_recipes_are_listed_with_a_line_and_a_size(capsys):
    assert main(["recipes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == recipe_names()
    assert main(["recipes", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == recipe_names()
    recipe = load_recipe("gain-shape")
    model = Tokenizer(recipe.model.dim, recipe.model.downsampling, recipe.model.quantizer, recipe.model.options)
    assert rows["gain-shape"]["summary"] == recipe.description
    assert rows["gain-shape"]["parameters"] == sum(value.numel() for value in model.parameters())
    assert load_recipe(rows["vector"]["file"]).name == "vector"
