"""What a training does: its settings, without open defaults, and its recipe."""

import dataclasses
import math
import pathlib

import keras

from keras_mixer import recipes
from keras_mixer.cli.names import record_of
from keras_mixer.cli.names import variant_name
from keras_mixer.cli.settings import Settings
from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.weights import catalog

# The default batch size is the largest power of two between these that gives at
# least `LEAST_STEPS` steps in an epoch.
LEAST_BATCH, MOST_BATCH, LEAST_STEPS = 4, 64, 8


# The others of Keras, OpenVINO and NumPy, only predict.
BACKENDS = ("tensorflow", "jax", "torch")

# If a recipe is published for a number of steps, a small training set is not
# used more often than this.
MOST_EPOCHS = 100


def recipe_of(settings):
    """Returns the `Recipe` that settings name, or whose fields they have."""
    given = settings.recipe
    if not isinstance(given, dict):
        return recipes.RECIPES[given]
    changes = {"batch_size": MOST_BATCH, **given}
    if changes.get("warmup_epochs") is changes.get("warmup_steps") is None:
        changes["warmup_steps"] = 0
    augmentation = dict(changes.get("augmentation", {}))
    if augmentation.get("randaugment"):
        augmentation["randaugment"] = tuple(augmentation["randaugment"])
    changes["augmentation"] = recipes.Augmentation(**augmentation)
    return recipes.Recipe(**changes)


def resolved(settings, recorded=None):
    """Returns settings with absolute paths and without open defaults.

    They mean the same in any working folder and for any version. Only
    `batch_size` and `epochs` can still be `None`: they can depend on the number
    of images.

    Args:
        settings: `Settings`.
        recorded: The `Settings` in `run.json`, if a training is resumed.
    """
    recipe, record = recipe_of(settings), record_of(settings)
    is_whole = recipe.augmentation.crop != "inception"
    ratio, interpolation = 1.0 if is_whole else CROP_RATIO, INTERPOLATION
    if record is not None:
        ratio = record.source.crop_ratio
        interpolation = record.source.interpolation
    if settings.crop_ratio is not None:
        ratio = settings.crop_ratio
    from_file = settings.recipe if isinstance(settings.recipe, dict) else {}
    return dataclasses.replace(
        settings,
        data=_whole(settings.data),
        data_dir=_whole(settings.data_dir),
        weights=_whole(settings.weights, pathlib.Path.is_file),
        image_size=settings.image_size
        or from_file.get("image_size")
        or catalog.image_size(variant_name(settings.model)),
        batch_size=settings.batch_size or from_file.get("batch_size"),
        learning_rate=settings.learning_rate or recipe.learning_rate,
        crop_ratio=ratio,
        interpolation=interpolation,
        drop_remainder=recorded is not None and recorded.drop_remainder,
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
        settings: Resolved `Settings`, with a batch size and a number of epochs.
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

        Args:
            settings: Resolved `Settings`.
            images: A `keras_mixer.data.Data`.

        Raises:
            ValueError: If the weights would never be updated, or a batch is
                larger than the training set.
        """
        recipe = recipe_of(settings)
        batch_size = settings.batch_size or _batch_size(settings, images)
        steps_per_epoch = images.steps_per_epoch(
            batch_size, settings.drop_remainder
        )
        epochs = settings.epochs or _epochs(settings, recipe, steps_per_epoch)
        batches = epochs * steps_per_epoch
        if settings.accumulate > batches:
            raise ValueError(
                "The weights would never be updated. Use a smaller "
                "`accumulate`, a smaller `batch_size` or more `epochs`. "
                f"Received: accumulate={settings.accumulate}, in a training of "
                f"{batches} batches"
            )
        updates = epochs * steps_per_epoch // settings.accumulate
        flip = recipe.augmentation.flip and not settings.no_flip
        recipe = dataclasses.replace(
            recipes.shortened(recipe, updates),
            learning_rate=settings.learning_rate,
            augmentation=dataclasses.replace(recipe.augmentation, flip=flip),
        )
        settings = dataclasses.replace(
            settings, batch_size=batch_size, epochs=epochs
        )
        return cls(settings, recipe, updates)


def _batch_size(settings, images):
    """Returns the default batch size."""
    if settings.drop_remainder:
        return MOST_BATCH  # as in earlier versions
    size = MOST_BATCH
    while size > LEAST_BATCH and size * LEAST_STEPS > images.train_count:
        size //= 2
    return min(size, images.train_count)


def _epochs(settings, recipe, steps_per_epoch):
    """Returns the default number of epochs."""
    if recipe.epochs is not None:
        return recipe.epochs
    if recipe.steps is None:
        raise ValueError(
            "The recipe has neither `epochs` nor `steps`. Give `--epochs`."
        )
    epochs = math.ceil(recipe.steps * settings.accumulate / steps_per_epoch)
    # Earlier versions, which dropped the remainder, had no limit.
    return epochs if settings.drop_remainder else min(epochs, MOST_EPOCHS)


def check_backend():
    """Raises an error if the backend cannot train, or has "channels_first"."""
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise ValueError(
            f"The backend of Keras must be one of {list(BACKENDS)} to train. "
            f"Set KERAS_BACKEND. Received: backend '{backend}'"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images are read as (height, width, channels). Set "
            '`"image_data_format": "channels_last"` in keras.json.'
        )
