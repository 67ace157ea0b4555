"""Builds the model of a training."""

import importlib
import itertools
import os
import sys

import keras

from keras_mixer.cli.names import is_own
from keras_mixer.models.constructors import MODELS
from keras_mixer.models.finetuning import freeze
from keras_mixer.models.finetuning import new_head


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


def build(settings, recipe, image_shape, classes):
    """Returns the model to train. Its outputs are logits.

    Args:
        settings: Resolved `Settings`.
        recipe: The `Recipe`.
        image_shape: Tuple `(height, width, channels)`.
        classes: Integer, the number of classes.

    Raises:
        ValueError: If the model does not fit the images or the weights, has no
            layer to freeze of that name, or could not be loaded when it is
            trained.
    """
    options = {
        "input_shape": image_shape,
        "weights": settings.weights,
        "stochastic_depth_rate": recipe.stochastic_depth_rate,
        "dropout_rate": recipe.dropout_rate,
    }
    if settings.weights is None:
        options |= {"classes": classes, "classifier_activation": None}
    else:
        options |= {"include_top": False, "pooling": "avg"}
        options["resize"] = settings.resize
    with keras.RematScope("full" if settings.remat else None):
        model = constructor_of(settings.model)(**options)
    if settings.weights is not None:
        model = new_head(model, classes, activation=None)
    if is_own(settings.model):
        _check_own(model, settings.model, (None, *image_shape), (None, classes))
    if settings.freeze is not None:
        freeze(model, settings.last_frozen)
    return model


def _check_own(model, name, input_shape, output_shape):
    """Raises an error if a model of the user cannot be trained and loaded."""
    try:
        # What `training.save_model` saves.
        whole = keras.Model(model.input, model.output)
    except (AttributeError, TypeError, ValueError):
        whole = None
    shapes = whole and [whole.input_shape, whole.output_shape]
    if not shapes or not all(map(_fits, (input_shape, output_shape), shapes)):
        raise ValueError(
            f"The function '{name}' must return a functional or sequential "
            f"`keras.Model` for images of shape {input_shape}. It must return "
            f"logits of shape {output_shape}. Received: a "
            f"{type(model).__name__} with the shapes {shapes}"
        )
    try:
        config = keras.saving.serialize_keras_object(whole)
        keras.saving.deserialize_keras_object(config)
    except Exception as error:  # the layers are the user's
        raise ValueError(
            f"The model of '{name}' could not be loaded after the training. "
            "Register its layers with "
            "`@keras.saving.register_keras_serializable()`, and give them "
            f"`get_config`. Received: {type(error).__name__}: {error}"
        ) from error


def _fits(shape, expected):
    """Whether tensors of a shape fit another one, which may have open sides."""
    return isinstance(expected, tuple) and all(
        side in (size, None)
        for size, side in itertools.zip_longest(shape, expected, fillvalue=0)
    )
