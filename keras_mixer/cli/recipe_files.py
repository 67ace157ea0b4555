"""Recipes of the user, in JSON files with the fields of `recipes.Recipe`.

`run.json` stores the content of the file, so the file is not needed to resume a
training.
"""

import dataclasses
import json
import pathlib

from keras_mixer.recipes import RECIPES
from keras_mixer.recipes import Augmentation
from keras_mixer.recipes import Recipe

SUFFIX = ".json"


def load(path, run):
    """Returns the content of a recipe file, a checked dict.

    Args:
        path: Path of the file.
        run: Path of the folder of a training. If the file does not exist any
            more, its content is read from `run.json`.

    Raises:
        ValueError: If the file does not exist, or a field is unknown, missing
            or has a wrong value.
    """
    path, record = pathlib.Path(path), pathlib.Path(run, "run.json")
    if not path.is_file() and record.is_file():
        settings = json.loads(record.read_text("utf-8"))["settings"]
        if isinstance(settings.get("recipe"), dict):
            return settings["recipe"]
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            "`--recipe` must be the name of a recipe, or a JSON file. "
            f"Received: '{path}': {error}"
        ) from error
    try:
        recipe_of(content)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    return {"source": path.name, **content}


def recipe_of(given, batch_size=64):
    """Returns a `Recipe`.

    Args:
        given: The name of a published recipe, or the content of a file.
        batch_size: Integer, for a file without this field.

    Raises:
        ValueError: If there is no such recipe, or a field is unknown, missing
            or has a wrong value.
    """
    if isinstance(given, str):
        if given not in RECIPES:
            raise ValueError(
                f"There is no recipe '{given}'. Use one of: "
                + ", ".join(RECIPES)
            )
        return RECIPES[given]
    fields = _checked(given, Recipe, "a recipe")
    augmentation = _checked(
        fields.get("augmentation", {}), Augmentation, "`augmentation`"
    )
    if isinstance(augmentation.get("randaugment"), list):
        augmentation["randaugment"] = tuple(augmentation["randaugment"])
    fields["augmentation"] = Augmentation(**augmentation)
    fields = {"source": "a file", "batch_size": batch_size, **fields}
    missing = {"optimizer", "learning_rate"} - fields.keys()
    if missing:
        raise ValueError(f"The recipe must have the fields {sorted(missing)}.")
    if fields.get("warmup_epochs") is fields.get("warmup_steps") is None:
        fields["warmup_steps"] = 0
    return Recipe(**fields)


def _checked(fields, record, name):
    """Returns a copy of fields, after a check of their names."""
    known = [field.name for field in dataclasses.fields(record)]
    if not isinstance(fields, dict):
        raise ValueError(
            f"Expected a JSON object for {name}. Received: {fields!r}"
        )
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ValueError(
            f"Unknown fields of {name}: {unknown}. Use: {', '.join(known)}"
        )
    return dict(fields)
