"""The settings of a training, from the command line to `run.json`.

`Settings` defines them once: the arguments of the command line are created from
its fields, and `run.json` stores its values. They are compared when a training
is started again. Settings that are not given are set to their defaults before
they are written, so a later version with other defaults can repeat the same
training.
"""

import argparse
import dataclasses
import math
import pathlib

import keras

from keras_mixer import distributing
from keras_mixer import recipes
from keras_mixer.arguments import check_positive_int
from keras_mixer.commands.models import record_of
from keras_mixer.commands.models import variant_name
from keras_mixer.data.photos import CROP_RATIO
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog


def parse_size(text):
    """Parses "224" or "192x320" to `(height, width)`."""
    sides = text.split("x")
    if len(sides) > 2 or not all(s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(
            "expected a size in pixels, such as 224, or height x width, such "
            f"as 192x320. Received: {text}"
        )
    return (int(sides[0]), int(sides[-1]))


def _setting(default, text, shown=None, **argument):
    """Returns a field that is also an argument of the command line.

    Args:
        default: The default value.
        text: The help text, with the unit.
        shown: The default in the help text; by default the default value.
        **argument: Options of `argparse.ArgumentParser.add_argument`.
    """
    metadata = {"text": text, "shown": shown or default, "argument": argument}
    return dataclasses.field(default=default, metadata=metadata)


def add_arguments(add_argument, names, **changed):
    """Adds an argument for each setting to a parser.

    Args:
        add_argument: The parser's `add_argument`.
        names: Names of settings.
        **changed: Other defaults, as `(default, text for the help)`.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for name in names:
        field = fields[name]
        usual = field.default, field.metadata["shown"]
        default, shown = changed.get(name, usual)
        add_argument(
            f"--{name.replace('_', '-')}",
            default=default,
            help=f"{field.metadata['text']} (default: {shown})",
            **field.metadata["argument"],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a training.

    The text of each field is its help on the command line. For details see
    `keras_mixer.data`, `keras_mixer.recipes` and `model.compile`.

    Raises:
        ValueError: If a setting has a wrong value.
        TypeError: If a setting has the wrong type.
    """

    data: str | None = _setting(
        None,
        "folder of images, with one subfolder per class",
        "none",
        metavar="FOLDER",
    )
    dataset: str | None = _setting(
        None,
        "name of a data set of TensorFlow Datasets",
        "none",
        metavar="NAME",
    )
    data_dir: str | None = _setting(
        None,
        "folder in which TensorFlow Datasets keeps data sets",
        "~/tensorflow_datasets",
        metavar="FOLDER",
    )
    batch_size: int = _setting(
        64, "images in a batch, on all devices together", type=int
    )
    model: str = _setting(
        "MixerNano",
        f"name of the model: {', '.join(MODELS)}",
        choices=MODELS,
        metavar="NAME",
    )
    weights: str | None = _setting(
        None, "weights to start from: a tag or a file", "none"
    )
    recipe: str = _setting(
        "nano.cifar10",
        f"name of the recipe: {', '.join(recipes.RECIPES)}",
        metavar="NAME",
    )
    epochs: int | None = _setting(
        None, "passes over the training images", "the recipe's", type=int
    )
    learning_rate: float | None = _setting(
        None, "peak learning rate", "the recipe's", type=float
    )
    layer_decay: float = _setting(
        1.0,
        "learning rate of a block divided by that of the next block",
        type=float,
    )
    image_size: tuple | None = _setting(
        None,
        "size of the images in pixels: 224, or 192x320 for height x width",
        "that of the model's published weights, or 224",
        type=parse_size,
    )
    crop_ratio: float | None = _setting(
        None,
        "fraction of the height and width of an image that is kept for "
        "validation and test, in (0, 1]",
        "that of the published weights, or the recipe's",
        type=float,
    )
    channels: int = _setting(
        3,
        "channels of the images in --data: 1 for grey, 3 for RGB",
        type=int,
        choices=(1, 3),
    )
    accumulate: int = _setting(
        1,
        "batches per update of the weights: an update uses N times "
        "--batch-size images",
        type=int,
        metavar="N",
    )
    class_weights: str | None = _setting(
        None,
        "'balanced' makes all classes count the same in the loss",
        "none",
        choices=("balanced",),
    )
    freeze: str | None = _setting(
        None,
        "last layer that is not trained: stem, a block such as block_5 or 5, "
        "or norm to train only the head",
        "none",
        metavar="LAYER",
    )
    keep_best: bool = _setting(
        False,
        "keep the model of the best epoch too, for --best of evaluate and "
        "predict",
        "only that of the last epoch",
        action="store_true",
    )
    patience: int | None = _setting(
        None,
        "stop after N epochs without a better one",
        "train all epochs",
        type=int,
        metavar="N",
    )
    no_flip: bool = _setting(
        False, "do not mirror images", "the recipe's", action="store_true"
    )
    precision: str = _setting(
        "float32", "dtype policy of Keras, such as mixed_bfloat16"
    )
    distribute: str = _setting(
        "auto", "how to train on many devices", choices=distributing.KINDS
    )
    jit_compile: bool | str = _setting(
        "auto",
        "whether XLA compiles the training",
        "what Keras chooses",
        action=argparse.BooleanOptionalAction,
    )
    seed: int = _setting(0, "seed of all random numbers", type=int)
    # Set by `resolved`. It has no argument.
    interpolation: str | None = None

    def __post_init__(self):
        if self.recipe not in recipes.RECIPES:
            raise ValueError(
                f"There is no recipe '{self.recipe}'. Use one of: "
                + ", ".join(recipes.RECIPES)
            )
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(
                "`learning_rate` must be positive. "
                f"Received: learning_rate={self.learning_rate}"
            )
        if self.dataset is not None and self.channels != 3:
            raise ValueError(
                "`channels` is only for images in folders. TFDS data sets "
                "keep their channels. Received: "
                f"channels={self.channels}, dataset={self.dataset}"
            )

    @classmethod
    def from_record(cls, record, folder):
        """Returns the settings in `run.json`.

        Args:
            record: Dict, the content of `run.json`.
            folder: Path of its folder, for the error message.

        Raises:
            ValueError: If a setting is unknown, or a setting that all versions
                write is missing.
        """
        settings = record.get("settings", {})
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(settings.keys() - known)
        missing = sorted(known - settings.keys() - ADDED.keys())
        if unknown or missing:
            raise ValueError(
                f"The training in '{folder}' was started by another version "
                f"of keras_mixer. Unknown settings: {unknown}. Missing "
                f"settings: {missing}. Use the version in run.json, or another "
                "folder."
            )
        size = settings["image_size"]
        return cls(**{**settings, "image_size": size and tuple(size)})

    def resolved(self):
        """Returns settings with absolute paths and without open defaults.

        They mean the same in any working folder and for any version. Only
        `epochs` can still be `None`: it can depend on the number of images.
        """
        recipe, record = recipes.RECIPES[self.recipe], record_of(self)
        is_whole = recipe.augmentation.crop != "inception"
        ratio, interpolation = 1.0 if is_whole else CROP_RATIO, INTERPOLATION
        if record is not None:
            ratio = record.source.crop_ratio
            interpolation = record.source.interpolation
        return dataclasses.replace(
            self,
            data=_whole(self.data),
            data_dir=_whole(self.data_dir),
            weights=_whole(self.weights, pathlib.Path.is_file),
            image_size=self.image_size
            or catalog.image_size(variant_name(self.model)),
            learning_rate=self.learning_rate or recipe.learning_rate,
            crop_ratio=ratio if self.crop_ratio is None else self.crop_ratio,
            interpolation=interpolation,
        )

    @classmethod
    def names(cls):
        """Returns the names of the settings that have an argument."""
        return [
            field.name for field in dataclasses.fields(cls) if field.metadata
        ]

    @property
    def last_frozen(self):
        """The argument of `keras_mixer.freeze`: a name, an index or `None`."""
        try:
            return int(self.freeze)
        except (TypeError, ValueError):
            return self.freeze

    @property
    def evaluation(self):
        """A dict: how to crop and resize images for evaluation."""
        return {
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
        }


# Settings that earlier versions did not have, with the values that those
# versions used.
ADDED = {
    field.name: field.default
    for field in dataclasses.fields(Settings)
    if field.name
    in (
        "accumulate",
        "channels",
        "class_weights",
        "freeze",
        "keep_best",
        "patience",
    )
}


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
