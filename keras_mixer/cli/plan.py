"""What a training does: its settings, without open defaults, and its recipe."""

import dataclasses
import math
import pathlib

from keras_mixer import recipes
from keras_mixer.arguments import check_image_size
from keras_mixer.cli.names import variant_name
from keras_mixer.cli.recipe_files import recipe_of
from keras_mixer.cli.settings import Settings
from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.weights import catalog

# The default batch size is the largest power of two between these that gives at
# least `LEAST_STEPS` steps in an epoch.
LEAST_BATCH, MOST_BATCH, LEAST_STEPS = 4, 64, 8

# If a recipe is published for a number of steps, a small training set is not
# used more often than this.
MOST_EPOCHS = 100


def resolved(settings):
    """Returns settings with absolute paths and without open defaults.

    They mean the same in any working folder and for any version. Only
    `batch_size` and `epochs` can still be `None`: they can depend on the number
    of images.

    Args:
        settings: `Settings`.
    """
    recipe = recipe_of(settings.recipe)
    record = catalog.record_of(settings.model, settings.weights)
    is_whole = recipe.augmentation.crop != "inception"
    ratio, interpolation = 1.0 if is_whole else CROP_RATIO, INTERPOLATION
    if record is not None:
        ratio = record.source.crop_ratio
        interpolation = record.source.interpolation
    from_file = settings.recipe if isinstance(settings.recipe, dict) else {}
    image_size = (
        settings.image_size
        or from_file.get("image_size")
        or catalog.image_size(variant_name(settings.model))
    )
    return dataclasses.replace(
        settings,
        data=_absolute(settings.data),
        data_dir=_absolute(settings.data_dir),
        weights=_absolute(settings.weights, pathlib.Path.is_file),
        image_size=check_image_size(image_size),
        batch_size=settings.batch_size or from_file.get("batch_size"),
        learning_rate=settings.learning_rate or recipe.learning_rate,
        crop_ratio=settings.crop_ratio or ratio,
        interpolation=interpolation,
    )


def _absolute(path, applies=lambda path: True):
    """Returns an absolute path. Other values are returned unchanged."""
    if path is None or not applies(pathlib.Path(path)):
        return path
    return str(pathlib.Path(path).resolve())


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
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
    def of(cls, settings, count):
        """Returns the plan of a training on `count` images.

        Args:
            settings: Resolved `Settings`.
            count: Integer, the number of images to train on.

        Raises:
            ValueError: If the weights would never be updated, or a batch is
                larger than the training set.
        """
        recipe = recipe_of(settings.recipe)
        batch_size = settings.batch_size or _batch_size(count)
        if batch_size > count:
            raise ValueError(
                "A batch must not be larger than the training set. Received: "
                f"batch_size={batch_size} for {count} images"
            )
        # As `Data.steps_per_epoch` of batches without a remainder.
        steps_per_epoch = (count + batch_size // 2) // batch_size
        epochs = settings.epochs or _epochs(settings, recipe, steps_per_epoch)
        batches = epochs * steps_per_epoch
        if settings.accumulate > batches:
            raise ValueError(
                "The weights would never be updated. Use a smaller "
                "`accumulate`, a smaller `batch_size` or more `epochs`. "
                f"Received: accumulate={settings.accumulate}, in a training of "
                f"{batches} batches"
            )
        updates = batches // settings.accumulate
        if isinstance(settings.recipe, str):
            recipe = recipes.shortened(recipe, updates)
        flip = recipe.augmentation.flip and not settings.no_flip
        recipe = dataclasses.replace(
            recipe,
            learning_rate=settings.learning_rate,
            augmentation=dataclasses.replace(recipe.augmentation, flip=flip),
        )
        settings = dataclasses.replace(
            settings, batch_size=batch_size, epochs=epochs
        )
        return cls(settings, recipe, updates)


def _batch_size(count):
    """Returns the default batch size for a number of images to train on."""
    size = MOST_BATCH
    while size > LEAST_BATCH and size * LEAST_STEPS > count:
        size //= 2
    return min(size, count)


def _epochs(settings, recipe, steps_per_epoch):
    """Returns the default number of epochs."""
    if recipe.epochs is not None:
        return recipe.epochs
    if recipe.steps is None:
        raise ValueError(
            "The recipe has neither `epochs` nor `steps`. Use `--epochs`."
        )
    epochs = math.ceil(recipe.steps * settings.accumulate / steps_per_epoch)
    return min(epochs, MOST_EPOCHS)
