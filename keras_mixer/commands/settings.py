"""The settings of a training, from the command line to `run.json`.

`Settings` is the one list of them: the arguments of the command line are made
from its fields, and `run.json` keeps its values. A training is compared by them
when it is started again. Whatever the command line leaves open is decided
before they are written, so that a later version with other defaults repeats the
same training.
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
    """`(height, width)` of "224" or "192x320"."""
    sides = text.split("x")
    if len(sides) > 2 or not all(s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(
            "expected pixels, such as 224, or height and width, such as "
            f"192x320. Received: {text}"
        )
    return (int(sides[0]), int(sides[-1]))


def _setting(default, text, shown=None, **argument):
    """A field that is an argument of the command line.

    Args:
        default: Its default.
        text: What it is, with its unit.
        shown: The default as the help shows it, by default its value.
        **argument: Options of `argparse.ArgumentParser.add_argument`.
    """
    metadata = {"text": text, "shown": shown or default, "argument": argument}
    return dataclasses.field(default=default, metadata=metadata)


def add_arguments(add_argument, names, **changed):
    """Adds arguments of settings to a parser.

    Args:
        add_argument: The parser's `add_argument`.
        names: Names of settings.
        **changed: Other defaults, each as `(default, text of the default)`.
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
    """All that a training depends on.

    The text of each field is its help on the command line. Fields of images are
    those of `keras_mixer.data`, the others those of `keras_mixer.recipes` and
    `model.compile`.

    Raises:
        ValueError: If a setting has a value that it cannot have.
        TypeError: If a setting has the wrong type.
    """

    data: str | None = _setting(
        None,
        "folder of images, with a folder for each class",
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
        64, "images in a batch, of all devices together", type=int
    )
    model: str = _setting(
        "MixerNano",
        f"name of the model: {', '.join(MODELS)}",
        choices=MODELS,
        metavar="NAME",
    )
    weights: str | None = _setting(
        None, "weights to begin with: a tag or a file", "none"
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
        "learning rate of a block, divided by that of the next block",
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
        "share of the height and width of an image that is kept to validate "
        "and to test, in (0, 1]",
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
        "batches for one update of the weights: an update sees N times "
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
    # Decided by `resolved`; there is no argument for it.
    interpolation: str | None = None

    def __post_init__(self):
        if self.recipe not in recipes.RECIPES:
            raise ValueError(
                f"There is no recipe '{self.recipe}'. There are: "
                + ", ".join(recipes.RECIPES)
            )
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(
                "`learning_rate` must be positive. "
                f"Received: learning_rate={self.learning_rate}"
            )
        if self.dataset is not None and self.channels != 3:
            raise ValueError(
                "`channels` is for images in folders: those of TFDS keep the "
                "channels that they have. Received: "
                f"channels={self.channels}, dataset={self.dataset}"
            )

    @classmethod
    def from_record(cls, record, folder):
        """The settings that `run.json` holds.

        Args:
            record: Dict, the content of `run.json`.
            folder: Path of its folder, for the error.

        Raises:
            ValueError: If a setting is unknown, or one is missing that every
                version has written.
        """
        settings = record.get("settings", {})
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(settings.keys() - known)
        missing = sorted(known - settings.keys() - ADDED.keys())
        if unknown or missing:
            raise ValueError(
                f"The settings of the training in '{folder}' are not those of "
                f"this version: unknown are {unknown}, missing are {missing}. "
                "Use the version of keras_mixer that has written them, which "
                "is in run.json, or another folder."
            )
        size = settings["image_size"]
        return cls(**{**settings, "image_size": size and tuple(size)})

    def resolved(self):
        """Settings that mean the same in any folder and for any version.

        Only `epochs` may still be open: it can depend on the number of images.
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
        """The names of the settings that have an argument."""
        return [
            field.name for field in dataclasses.fields(cls) if field.metadata
        ]

    @property
    def evaluation(self):
        """How images to evaluate on are cropped and resized, a dict."""
        return {
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
        }


# Settings that records of earlier versions do not have, and the values that
# those trainings had.
ADDED = {
    field.name: field.default
    for field in dataclasses.fields(Settings)
    if field.name in ("accumulate", "channels", "class_weights")
}


def _whole(path, applies=lambda path: True):
    """A path from the root on, if it is one."""
    if path is None or not applies(pathlib.Path(path)):
        return path
    return str(pathlib.Path(path).resolve())


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training with nothing left open.

    Args:
        settings: `Settings`, resolved, with a number of epochs.
        recipe: The `Recipe` as it is used. The published recipes are for long
            trainings: in a shorter one the warm-up and the average of weights
            are shorter too.
        updates: Integer, how often the weights are updated.
    """

    settings: Settings
    recipe: recipes.Recipe
    updates: int

    @classmethod
    def of(cls, settings, images):
        """The plan of a training on images.

        Raises:
            ValueError: If the weights would never be updated, or there are
                fewer images than in a batch.
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
    """Refuses "channels_first", in which no image is read."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images are read as (height, width, channels). Set "
            '`"image_data_format": "channels_last"` in keras.json.'
        )
