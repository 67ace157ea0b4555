"""The models that can be named on the command line."""

import importlib
import os
import sys
import typing

import keras

from keras_mixer.commands.names import default_weights
from keras_mixer.commands.names import is_own
from keras_mixer.commands.names import variant_name
from keras_mixer.labels import class_names
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog


def record_of(settings):
    """Returns the record of the published weights in `settings`, or `None`."""
    return catalog.find(variant_name(settings.model), settings.weights)


def constructor_of(model):
    """Returns the function that builds a model.

    Args:
        model: Name of a constructor, or `"module:function"`. The module is
            imported, from the current folder too.

    Raises:
        ValueError: If there is no such function.
    """
    if not is_own(model):
        return MODELS[model]
    module, _, function = model.partition(":")
    if os.getcwd() not in sys.path:  # `python -m` has it, a console command not
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # An error within the module is reported as it is.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            "`--model module:function` needs a module in the current folder, "
            f"or an installed one. Received: {model!r}"
        ) from error
    if not callable(getattr(found, function, None)):
        raise ValueError(
            f"There is no function '{function}' in '{found.__file__}'. "
            f"Received: --model {model}"
        )
    return getattr(found, function)


class Trained(typing.NamedTuple):
    """A trained model, for evaluation and prediction."""

    model: keras.Model  # returns probabilities
    names: list  # lists of class names; the first list is for printing
    evaluation: dict  # `crop_ratio` and `interpolation` of its images


def published_record(model, weights=None):
    """Returns the record of published weights that have a head.

    Args:
        model: Name of a constructor.
        weights: Tag of its weights; see `default_weights` for the default.

    Returns:
        A `Record`.

    Raises:
        ValueError: If the weights do not exist or have no head.
    """
    weights = weights or default_weights(model)
    record = catalog.find(variant_name(model), weights)
    if record is None:
        raise ValueError(
            f"There are no published weights '{weights}' of {model}. "
            "`python -m keras_mixer weights` lists the published weights. For "
            "a model that you trained, give the folder of the training."
        )
    if record.classes is None:
        raise ValueError(f"The weights '{record.name}' have no trained head.")
    return record


def published(model, record, channels=3):
    """Returns a model with published weights, as a `Trained`.

    Args:
        model: Name of its constructor.
        record: Its `Record`, from `published_record`.
        channels: Integer, the channels of the images. The stem is adapted to
            them.
    """
    size = catalog.image_size(record.variant)
    built = MODELS[model](
        weights=record.tag,
        classes=record.classes,
        input_shape=(size, size, channels),
    )
    wnids, names = map(list, zip(*class_names(record.classes), strict=True))
    # The ids of CIFAR-10 are numbers. They are not used as names, since they
    # would match the classes of MNIST.
    known = [names] if wnids[0].isdecimal() else [names, wnids]
    evaluation = {
        "crop_ratio": record.source.crop_ratio,
        "interpolation": record.source.interpolation,
    }
    return Trained(built, known, evaluation)
