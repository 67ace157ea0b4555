"""The settings of a training, from the command line to `run.json`.

`Settings` defines them once: the arguments of the command line are created from
its fields, and `run.json` stores its values. They are compared when a training
is started again. Settings that are not given are set to their defaults before
they are written, so a later version with other defaults can repeat the same
training.
"""

import argparse
import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from keras_mixer.arguments import COUNT
from keras_mixer.arguments import POSITIVE
from keras_mixer.arguments import check_fields
from keras_mixer.arguments import number_in
from keras_mixer.cli.names import DEFAULT_MODEL
from keras_mixer.cli.names import DEVICES
from keras_mixer.cli.names import RESIZE_METHODS
from keras_mixer.cli.names import check_model
from keras_mixer.cli.parsing import Arguments
from keras_mixer.cli.parsing import option
from keras_mixer.cli.recipe_files import recipe_of
from keras_mixer.recipes import RECIPES
from keras_mixer.variants import CONSTRUCTORS

# The groups of arguments in the help.
DATA, MODEL, TRAINING, DEVICE = "data", "model", "training", "devices"


def parse_size(text):
    """Parses "224" or "192x320" to `(height, width)`."""
    sides = text.split("x")
    if len(sides) > 2 or not all(s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(
            "expected a size in pixels, such as 224, or height x width, such "
            f"as 192x320. Received: {text}"
        )
    return (int(sides[0]), int(sides[-1]))


# What the settings may be.
RULES = {
    "batch_size": COUNT,
    "epochs": COUNT,
    "accumulate": COUNT,
    "patience": COUNT,
    "learning_rate": POSITIVE,
    "layer_decay": number_in("(0, 1]"),
    "crop_ratio": number_in("(0, 1]"),
    # `keras.utils.set_random_seed` takes no larger one.
    "seed": number_in(f"[0, {2**32 - 1}]", numbers.Integral),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Arguments):
    """All settings of a training.

    The text of each field is its help on the command line. For details see
    `keras_mixer.data`, `keras_mixer.recipes` and `model.compile`.

    Raises:
        ValueError: If a setting has a wrong value.
        TypeError: If a setting has the wrong type.
    """

    data: str | None = option(
        None,
        "folder of images with one folder per class, or with such folders in "
        "train, validation and test",
        "none",
        metavar="FOLDER",
        group=DATA,
        is_path=True,
    )
    dataset: str | None = option(
        None,
        "name of a data set of TensorFlow Datasets, instead of --data",
        "none",
        metavar="NAME",
        group=DATA,
    )
    data_dir: str | None = option(
        None,
        "folder in which TensorFlow Datasets keeps its data sets",
        "~/tensorflow_datasets",
        metavar="FOLDER",
        group=DATA,
        is_path=True,
    )
    batch_size: int | None = option(
        None,
        "images in a batch, on all devices together",
        "64; for fewer than 512 images to train on, down to 4",
        type=int,
        metavar="N",
        group=DATA,
    )
    model: str = option(
        DEFAULT_MODEL,
        f"name of the model: {', '.join(CONSTRUCTORS)}; or, to train, "
        "module:function, a function of yours that takes the same arguments",
        metavar="NAME",
        group=MODEL,
    )
    weights: str | None = option(
        None,
        "weights to start from: a tag of published weights, a file, or "
        "hf://organization/name",
        "none: random weights",
        group=MODEL,
    )
    resize: str = option(
        "auto",
        "how the token mixing of --weights is adapted to images of another "
        "size: 'auto' tiles it if the grid of patches grows by whole factors, "
        "else interpolates it",
        "auto",
        choices=RESIZE_METHODS,
        group=MODEL,
    )
    recipe: str | Mapping[str, Any] = option(
        "nano.cifar10",
        "name of the hyper-parameters (optimizer, learning rate, "
        f"augmentation): {', '.join(RECIPES)}; or a .json file with the fields "
        "of keras_mixer.recipes.Recipe",
        metavar="NAME",
        group=TRAINING,
    )
    epochs: int | None = option(
        None,
        "passes over the training images",
        "the recipe's; at most 100 if the recipe has a number of steps",
        type=int,
        metavar="N",
        group=TRAINING,
    )
    learning_rate: float | None = option(
        None,
        "highest learning rate, after the warm-up",
        "the recipe's",
        type=float,
        metavar="RATE",
        group=TRAINING,
    )
    layer_decay: float = option(
        1.0,
        "learning rate of a block divided by that of the next block, in "
        "(0, 1]; 1 for the same rate in all blocks",
        type=float,
        metavar="RATIO",
        group=TRAINING,
    )
    image_size: tuple | None = option(
        None,
        "size to which images are resized, in pixels: 224, or 192x320 for "
        "height x width; a multiple of the patch size of the model",
        "that of the model's published weights, or 224",
        type=parse_size,
        metavar="SIZE",
        group=DATA,
    )
    crop_ratio: float | None = option(
        None,
        "fraction of the height and width of an image that is kept for "
        "validation and test, in (0, 1]",
        "that of the published weights, or the recipe's",
        type=float,
        metavar="RATIO",
        group=DATA,
    )
    channels: int = option(
        3,
        "channels of the images in --data: 1 for gray, 3 for RGB",
        type=int,
        choices=(1, 3),
        group=DATA,
    )
    accumulate: int = option(
        1,
        "batches per update of the weights: an update uses N times "
        "--batch-size images",
        type=int,
        metavar="N",
        group=TRAINING,
    )
    class_weights: str | None = option(
        None,
        "'balanced' makes all classes count the same in the loss",
        "none",
        choices=("balanced",),
        group=TRAINING,
    )
    freeze: str | None = option(
        None,
        "last layer that is not trained: stem, a block such as block_5 or 5, "
        "or norm to train only the head",
        "none",
        metavar="LAYER",
        group=MODEL,
    )
    keep_best: bool = option(
        False,
        "keep the model of the best epoch too, for --best of evaluate and "
        "predict",
        "only that of the last epoch",
        action="store_true",
        group=TRAINING,
    )
    patience: int | None = option(
        None,
        "stop after N epochs without a better one",
        "train all epochs",
        type=int,
        metavar="N",
        group=TRAINING,
    )
    no_flip: bool = option(
        False,
        "do not mirror images, for example of digits or text",
        "the recipe's",
        action="store_true",
        group=DATA,
    )
    precision: str = option(
        "float32",
        "dtype policy of Keras, such as mixed_bfloat16",
        metavar="POLICY",
        group=DEVICE,
    )
    remat: bool = option(
        False,
        "compute each block a second time for its gradients, which needs less "
        "memory and more time; not with dropout",
        "once",
        action="store_true",
        group=DEVICE,
    )
    distribute: str = option(
        "auto",
        f"how to train on many devices: {', '.join(DEVICES)}",
        choices=DEVICES,
        metavar="KIND",
        group=DEVICE,
    )
    jit_compile: bool | str = option(
        "auto",
        "whether XLA compiles the training",
        "what Keras chooses",
        action=argparse.BooleanOptionalAction,
        group=DEVICE,
    )
    seed: int = option(
        0,
        "seed of all random numbers: the same seed gives the same training",
        type=int,
        metavar="N",
        group=TRAINING,
    )
    # `resolved` sets it; it has no argument.
    interpolation: str | None = None

    def __post_init__(self):
        super().__post_init__()
        check_model(self.model)
        recipe_of(self.recipe)
        check_fields(self, RULES)
        if self.resize != "auto" and self.weights is None:
            raise ValueError(
                "`resize` is only for `weights` to start from. "
                f"Received: resize='{self.resize}', weights=None"
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
            ValueError: If a setting is unknown or missing.
        """
        settings = record.get("settings", {})
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(settings.keys() - known)
        missing = sorted(known - settings.keys())
        if unknown or missing:
            raise ValueError(
                f"The training in '{folder}' was started by another version "
                f"of keras_mixer. Unknown settings: {unknown}. Missing "
                f"settings: {missing}. Use the version in run.json, or another "
                "folder."
            )
        return cls(**{**settings, "image_size": tuple(settings["image_size"])})

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
