"""The settings of a training, from the command line to `run.json`.

Settings are a flat dict: what `run.json` keeps, and what a training is compared
by when it is started again. Whatever the command line leaves open is decided
before they are written, so that a later version with other defaults repeats the
same training.
"""

import dataclasses
import math
import pathlib

import keras

from keras_mixer import recipes
from keras_mixer.arguments import check_positive_int
from keras_mixer.commands.models import record_of
from keras_mixer.commands.models import variant_name
from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.weights import catalog

# Settings that records of earlier versions do not have, and the values that
# those trainings had.
ADDED_SETTINGS = {"accumulate": 1, "channels": 3, "class_weights": None}


def check(settings):
    """Refuses what would otherwise be noticed late, or never."""
    if settings["recipe"] not in recipes.RECIPES:
        raise ValueError(
            f"There is no recipe '{settings['recipe']}'. There are: "
            + ", ".join(recipes.RECIPES)
        )
    for name in ("epochs", "batch_size", "accumulate"):
        if settings.get(name) is not None:
            check_positive_int(name, settings[name])
    rate = settings["learning_rate"]
    if rate is not None and not rate > 0:
        raise ValueError(
            f"`learning_rate` must be positive. Received: learning_rate={rate}"
        )
    if settings["dataset"] is not None and settings.get("channels", 3) != 3:
        raise ValueError(
            "`channels` is for images in folders: those of TFDS keep the "
            "channels that they have. Received: "
            f"channels={settings['channels']}, dataset={settings['dataset']}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images are read as (height, width, channels). Set "
            '`"image_data_format": "channels_last"` in keras.json.'
        )


def with_whole_paths(settings):
    """Settings that mean the same in every folder they are used from."""
    paths = {
        key: str(pathlib.Path(settings[key]).resolve())
        for key in ("data", "data_dir", "weights")
        if settings[key] is not None
        and (key != "weights" or pathlib.Path(settings[key]).is_file())
    }
    return settings | paths


def with_size(settings):
    """Settings with the size of the images."""
    size = settings["image_size"]
    size = size or catalog.image_size(variant_name(settings["model"]))
    return {**settings, "image_size": size}


def with_recipe(settings, images):
    """Settings with nothing left open, and the recipe as it will be used.

    The published recipes are for long trainings: in a shorter one the warm-up
    and the average of weights are shorter too.
    """
    recipe = recipes.RECIPES[settings["recipe"]]
    steps_per_epoch = images.steps_per_epoch(settings["batch_size"])
    epochs = settings["epochs"] or recipe.epochs
    if epochs is None:
        batches = recipe.steps * settings["accumulate"]
        epochs = math.ceil(batches / steps_per_epoch)
    steps = updates(epochs * steps_per_epoch, settings["accumulate"])
    flip = recipe.augmentation.flip and not settings["no_flip"]
    recipe = dataclasses.replace(
        recipes.shortened(recipe, steps),
        learning_rate=settings["learning_rate"] or recipe.learning_rate,
        augmentation=dataclasses.replace(recipe.augmentation, flip=flip),
    )
    record = record_of(settings)
    whole = recipe.augmentation.crop != "inception"
    crop_ratio = settings["crop_ratio"]
    if crop_ratio is None:
        crop_ratio = 1.0 if whole else CROP_RATIO
        crop_ratio = record.source.crop_ratio if record else crop_ratio
    interpolation = record.source.interpolation if record else INTERPOLATION
    settings = {
        **settings,
        "epochs": epochs,
        "learning_rate": recipe.learning_rate,
        "crop_ratio": crop_ratio,
        "interpolation": interpolation,
    }
    return settings, recipe


def updates(batches, accumulate):
    """How often the weights are updated in a training of so many batches."""
    if accumulate > batches:
        raise ValueError(
            "The weights would never be updated. Use a smaller `accumulate`, a "
            "smaller `batch_size` or more `epochs`. Received: "
            f"accumulate={accumulate}, in a training of {batches} batches"
        )
    return batches // accumulate
