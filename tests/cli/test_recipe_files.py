"""Recipes from JSON files."""

import dataclasses
import json

import pytest

from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.cli import plan
from keras_mixer.cli import recipe_files
from keras_mixer.cli.settings import Settings

SMALL = {"optimizer": "adam", "learning_rate": 0.002}


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_published_recipe_is_the_same_from_a_file(name, tmp_path):
    recipe = recipes.RECIPES[name]
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(dataclasses.asdict(recipe)))
    settings = Settings(recipe=recipe_files.load(path, tmp_path))
    assert recipe_files.recipe_of(settings.recipe) == recipe
    resolved = plan.resolved(settings)
    assert resolved.batch_size == recipe.batch_size
    assert resolved.image_size in ((224, 224), (32, 32))
    assert resolved.learning_rate == recipe.learning_rate


def test_fields_that_are_not_given_have_the_defaults_of_a_recipe(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**SMALL, "augmentation": {"mixup": 0.3}}))
    content = recipe_files.load(path, tmp_path)
    recipe = recipe_files.recipe_of(content)
    assert recipe == recipes.Recipe(
        source="mine.json",
        optimizer="adam",
        learning_rate=0.002,
        batch_size=64,
        warmup_steps=0,
        augmentation=recipes.Augmentation(mixup=0.3),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "Expected a JSON object for a recipe"),
        ({"optimizer": "adam"}, "the fields ['learning_rate']"),
        ({**SMALL, "rate": 1}, "of a recipe: ['rate']. Use: source, "),
        ({**SMALL, "optimizer": "adagrad"}, "Received: optimizer='adagrad'"),
        ({**SMALL, "learning_rate": 0}, "`learning_rate` must be a number in"),
        ({**SMALL, "learning_rate": "1"}, "Received: learning_rate='1'"),
        ({**SMALL, "learning_rate": None}, "Received: learning_rate=None"),
        ({**SMALL, "learning_rate": float("nan")}, "learning_rate=nan"),
        ({**SMALL, "learning_rate": float("inf")}, "learning_rate=inf"),
        ({**SMALL, "epochs": 2.5}, "`epochs` must be an integer in [1, inf)"),
        ({**SMALL, "epochs": True}, "Received: epochs=True"),
        ({**SMALL, "epochs": 2, "steps": 9}, "both of ('epochs', 'steps')"),
        ({**SMALL, "warmup_epochs": 2}, "needs the field `epochs`"),
        ({**SMALL, "label_smoothing": 1}, "in [0, 1). Received: label_"),
        ({**SMALL, "ema": 0}, "`ema` must be a number in (0, 1)"),
        ({**SMALL, "source": 3}, "`source` must be a string"),
        ({**SMALL, "augmentation": 3}, "JSON object for `augmentation`"),
        ({**SMALL, "augmentation": {"flip": 1}}, "`flip` must be one of (True"),
        ({**SMALL, "augmentation": {"zoom": 1}}, "`augmentation`: ['zoom']"),
        ({**SMALL, "augmentation": {"randaugment": [2]}}, "a pair of a pos"),
        ({**SMALL, "augmentation": {"erasing": 1.1}}, "in [0, 1]. Received"),
    ],
)
def test_wrong_content_is_reported(content, message, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        recipe_files.load(path, tmp_path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_or_damaged_file_is_reported(tmp_path):
    path = tmp_path / "recipe.json"
    training.open_run(tmp_path, {})  # of a script
    with pytest.raises(ValueError, match="No such file"):
        recipe_files.load(path, tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="must be the name of a recipe, or a"):
        recipe_files.load(path, tmp_path)
