"""Weights of the classes in the loss."""

import math

import numpy as np

from keras_mixer.arguments import check_real
from keras_mixer.data.batches import Data
from keras_mixer.data.indexed import mapped
from keras_mixer.data.indexed import read_checked
from keras_mixer.optional import require


def list_of_weights(class_weights, images):
    """Returns a list with the weight of each class, or `None`."""
    if class_weights is None:
        return None
    names = list(images.class_names)
    if isinstance(class_weights, str) and class_weights == "balanced":
        class_weights = balanced_class_weights(images)
    if not isinstance(class_weights, dict):
        raise TypeError(
            '`class_weights` must be "balanced", or a dict from classes to '
            f"weights. Received: class_weights={class_weights!r} "
            f"(of type {type(class_weights).__name__})"
        )
    weights = {}
    for key, weight in class_weights.items():
        index = names.index(key) if key in names else key
        # In Python, `True` is an integer.
        if isinstance(index, bool) or index not in range(len(names)):
            raise ValueError(
                "The keys of `class_weights` must be names of classes, or "
                f"indices below {len(names)}. Received: {key!r} for {names}"
            )
        if index in weights:
            raise ValueError(
                "`class_weights` must have one weight per class. Received: "
                f"several weights for {names[index]!r}, which is class {index}"
            )
        check_real(f"class_weights[{key!r}]", weight)
        if not 0 <= weight < math.inf:
            raise ValueError(
                "`class_weights` must be finite and not negative. "
                f"Received: {weight} for {key!r}"
            )
        weights[index] = float(weight)
    return [weights.get(index, 1.0) for index in range(len(names))]


def weighted(batches, weights):
    """Adds the weight of each image to batches of images and labels."""
    if weights is None:
        return batches
    tf = require("tensorflow")
    return mapped(
        batches,
        lambda images, labels: (
            images,
            labels,
            tf.linalg.matvec(labels, weights),
        ),
        1,
    )


def balanced_class_weights(images: Data) -> dict[str, float]:
    """Returns weights with which all classes count the same in the loss.

    The weight of a class is the number of training images, divided by the
    number of classes and by the number of images of this class.

    Source: `sklearn.utils.class_weight.compute_class_weight`, "balanced".

    Args:
        images: What `keras_mixer.data.load_folder` or `load_tfds` returns.

    Returns:
        A dict `{class name: weight}`, for the `class_weights` of `fit`.

    Raises:
        ValueError: If a class has no image to train on.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer import data, training
    >>> def read(index):
    ...     return tf.zeros((8, 8, 3), "uint8"), tf.cast(index > 2, "int32")
    >>> part = data.Images(4, read, decoded=True)
    >>> colors = data.Data(
    ...     "colors", ("navy", "teal"), (8, 8, 3), (), part, part)
    >>> weights = training.balanced_class_weights(colors)
    >>> {name: round(weight, 3) for name, weight in weights.items()}
    {'navy': 0.667, 'teal': 2.0}
    """
    tf = require("tensorflow")
    names = images.class_names
    labels = mapped(
        tf.data.Dataset.range(images.train_count),
        lambda index: read_checked(images.train_images, index, len(names))[1],
    )
    counts = np.bincount(list(labels.as_numpy_iterator()), minlength=len(names))
    if not counts.all():
        missing = [names[i] for i in np.flatnonzero(counts == 0)]
        raise ValueError(
            "Every class must have an image to train on. "
            f"Received: no images for {missing}"
        )
    return {
        name: float(images.train_count / (len(names) * count))
        for name, count in zip(names, counts, strict=True)
    }
