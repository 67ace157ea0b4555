"""The models that can be named on the command line."""

import typing

import keras

from keras_mixer.cli.names import default_weights
from keras_mixer.cli.names import variant_name
from keras_mixer.labels import class_names
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog


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
