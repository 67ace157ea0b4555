"""The models that a command can name, published or trained."""

import inspect
import typing

import keras

from keras_mixer.labels import class_names
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog


def record_of(settings):
    """The record of the published weights that settings name, or `None`."""
    return catalog.find(variant_name(settings.model), settings.weights)


def variant_name(model):
    """The variant that a constructor builds, such as "mixer_b16"."""
    return inspect.signature(MODELS[model]).parameters["name"].default


def default_weights(model):
    """The tag of the weights that a model is fine-tuned from by default.

    Raises:
        ValueError: If the model has no default; the error lists its tags.
    """
    tag = catalog.default_tag(variant_name(model))
    if tag is None:
        tags = [r.tag for r in catalog.list_weights(f"{variant_name(model)}.*")]
        raise ValueError(
            f"{model} has no default weights. Give `--weights`: "
            + (f"one of {tags}, or a file." if tags else "a file.")
        )
    return tag


# The model of `evaluate` and `predict` without `--run` and `--model`: its
# weights are in the package.
DEFAULT_MODEL = "MixerNano"


class Trained(typing.NamedTuple):
    """A model to evaluate or to predict with."""

    model: keras.Model  # it gives probabilities
    names: list  # lists of names that its classes go by, the one to show first
    evaluation: dict  # `crop_ratio` and `interpolation` of its images


def published_record(model, weights=None):
    """The record of published weights with a head.

    Args:
        model: Name of a constructor.
        weights: Tag of its weights, by default as in `default_weights`.

    Returns:
        A `Record`.

    Raises:
        ValueError: If there are no such weights, or they have no head.
    """
    weights = weights or default_weights(model)
    record = catalog.find(variant_name(model), weights)
    if record is None:
        raise ValueError(
            f"There are no published weights '{weights}' of {model}. "
            "`python -m keras_mixer weights` lists them; models that you have "
            "trained are the folder of their training."
        )
    if record.classes is None:
        raise ValueError(f"The weights '{record.name}' have no trained head.")
    return record


def published(model, record, channels=3):
    """A model with published weights, a `Trained`.

    Args:
        model: Name of its constructor.
        record: Its `Record`, from `published_record`.
        channels: Integer, of the images, to which the stem is adapted.
    """
    size = catalog.image_size(record.variant)
    built = MODELS[model](
        weights=record.tag,
        classes=record.classes,
        input_shape=(size, size, channels),
    )
    wnids, names = map(list, zip(*class_names(record.classes), strict=True))
    # Numbers, which CIFAR-10 has for ids, would fit the digits of MNIST.
    known = [names] if wnids[0].isdecimal() else [names, wnids]
    evaluation = {
        "crop_ratio": record.source.crop_ratio,
        "interpolation": record.source.interpolation,
    }
    return Trained(built, known, evaluation)
