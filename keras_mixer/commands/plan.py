"""What a training does: its settings, without open defaults, and its recipe."""

import dataclasses
import math
import pathlib

import keras

from keras_mixer import recipes
from keras_mixer.commands.models import record_of
from keras_mixer.commands.names import variant_name
from keras_mixer.commands.settings import Settings
from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.weights import catalog


def resolved(settings):
    """Returns settings with absolute paths and without open defaults.

    They mean the same in any working folder and for any version. Only
    `epochs` can still be `None`: it can depend on the number of images.
    """
    recipe, record = recipes.RECIPES[settings.recipe], record_of(settings)
    is_whole = recipe.augmentation.crop != "inception"
    ratio, interpolation = 1.0 if is_whole else CROP_RATIO, INTERPOLATION
    if record is not None:
        ratio = record.source.crop_ratio
        interpolation = record.source.interpolation
    if settings.crop_ratio is not None:
        ratio = settings.crop_ratio
    return dataclasses.replace(
        settings,
        data=_whole(settings.data),
        data_dir=_whole(settings.data_dir),
        weights=_whole(settings.weights, pathlib.Path.is_file),
        image_size=settings.image_size
        or catalog.image_size(variant_name(settings.model)),
        learning_rate=settings.learning_rate or recipe.learning_rate,
        crop_ratio=ratio,
        interpolation=interpolation,
    )


def _whole(path, applies=lambda path: True):
    """Returns an absolute path. Other values are returned unchanged."""
    if path is None or not applies(pathlib.Path(path)):
        return path
    return str(pathlib.Path(path).resolve())


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings, the recipe and the number of updates of a training.

    Args:
        settings: Resolved `Settings`, with a number of epochs.
        recipe: The `Recipe` to use. The published recipes are for long
            trainings. For a shorter training the warm-up and the average of
            the weights are shorter too.
        updates: Integer, the number of updates of the weights.
    """

    settings: Settings
    recipe: recipes.Recipe
    updates: int

    @classmethod
    def of(cls, settings, images):
        """Returns the plan of a training on `images`.

        Raises:
            ValueError: If the weights would never be updated, or a batch is
                larger than the training set.
        """
        recipe = recipes.RECIPES[settings.recipe]
        steps_per_epoch = images.steps_per_epoch(settings.batch_size)
        epochs = settings.epochs or recipe.epochs
        if epochs is None:
            batches = recipe.steps * settings.accumulate
            epochs = math.ceil(batches / steps_per_epoch)
        batches = epochs * steps_per_epoch
        if settings.accumulate > batches:
            raise ValueError(
                "The weights would never be updated. Use a smaller "
                "`accumulate`, a smaller `batch_size` or more `epochs`. "
                f"Received: accumulate={settings.accumulate}, in a training of "
                f"{batches} batches"
            )
        updates = batches // settings.accumulate
        flip = recipe.augmentation.flip and not settings.no_flip
        recipe = dataclasses.replace(
            recipes.shortened(recipe, updates),
            learning_rate=settings.learning_rate,
            augmentation=dataclasses.replace(recipe.augmentation, flip=flip),
        )
        settings = dataclasses.replace(settings, epochs=epochs)
        return cls(settings, recipe, updates)


def check_data_format():
    """Raises an error if the data format is not "channels_last"."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images are read as (height, width, channels). Set "
            '`"image_data_format": "channels_last"` in keras.json.'
        )
