"""Checks of the photo and of the class that several functions take."""

import keras
import numpy as np

from keras_mixer.arguments import check_model
from keras_mixer.arguments import check_natural
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.contract import check_data_format


def check_image(image, model):
    """Returns one image as a batch that `model` accepts.

    Args:
        image: Array of shape `(height, width, channels)`, or a batch of one
            such image. With the image data format "channels_first", the
            channels are before the height.
        model: A Keras model.

    Raises:
        ValueError: If the model does not have one image as input, in Keras's
            image data format, or `image` has another shape.
        TypeError: If `model` is not a Keras model.
    """
    check_model(model)
    array = np.asarray(image, "float32")
    batch = array[None] if array.ndim == 3 else array
    expected = getattr(model, "input_shape", (None,) * 4)
    if not isinstance(expected, tuple) or len(expected) != 4:
        raise ValueError(
            "`model` must have one input: images of shape (height, width, "
            f"channels). Received: model='{model.name}' with "
            f"input_shape={expected}"
        )
    fits = batch.ndim == 4 and all(
        size in (None, actual)
        for size, actual in zip((1, *expected[1:]), batch.shape, strict=True)
    )
    if inner_models(model):
        check_data_format(model)
    if not fits or len(batch) != 1:
        raise ValueError(
            f"`image` must be one image of shape {expected[1:]}, or a batch of "
            "one such image. `keras_mixer.load_image` returns such a batch. "
            f"Received: image of shape {array.shape}"
        )
    return batch


def outputs_of(model, batch):
    """Returns the outputs of a model as arrays, safely in several threads.

    On JAX, Keras's `predict` gives the buffers of the weights away while it
    runs: in two threads, one of them finds them deleted (Keras 3.15).
    """
    if keras.backend.backend() != "jax":
        return model.predict_on_batch(batch)
    outputs = model(batch, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def scores_of(model, batch):
    """Returns the output of a model for one image, of shape `(classes,)`."""
    output = outputs_of(model, batch)
    shape = getattr(output, "shape", None)
    if shape is None or len(shape) != 2:
        raise ValueError(
            "`model` must return one vector with a score for each class. "
            f"Received: model='{model.name}' with output of shape {shape}"
        )
    return output.astype("float32")[0]


def check_class(class_index, scores):
    """Returns `class_index`, or the class with the highest score if `None`.

    Args:
        class_index: Non-negative integer or `None`.
        scores: Array of shape `(classes,)`, the output of a model.
    """
    if class_index is None:
        return int(np.argmax(scores))
    index = check_natural("class_index", class_index)
    if index >= len(scores):
        raise ValueError(
            f"`class_index` must be below the number of classes, {len(scores)}."
            f" Received: class_index={index}"
        )
    return index
