"""The losses of the recipes, and checks that a model and its loss fit.

A loss on logits accepts probabilities too: the model then trains on a second
softmax, and learns little. Nothing else would show this, so it is an error if
the last layer leaves no doubt about what the model returns.
"""

import keras
from keras import ops

from keras_mixer.layers.output_activation import last_layer
from keras_mixer.layers.output_activation import output_activation
from keras_mixer.types import Tensor


def loss_of(recipe):
    """Returns the loss of a recipe, for logits and one-hot labels."""
    if recipe.loss == "sigmoid":
        return sigmoid_crossentropy
    return OneHotCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )


@keras.saving.register_keras_serializable(package="keras_mixer")
class OneHotCrossentropy(keras.losses.CategoricalCrossentropy):
    """`CategoricalCrossentropy` with a clear error for integer labels."""

    def call(self, y_true, y_pred):
        _check_labels(y_true, y_pred)
        return super().call(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_mixer")
def sigmoid_crossentropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Returns the sum of the binary cross-entropies of all classes.

    Keras's `BinaryCrossentropy` returns their mean. With 1000 classes its
    gradients are 1000 times smaller, and the `clip_norm` of the recipe would
    not fit them.

    Source: `sigmoid_xent` of google-research/big_vision.

    Args:
        y_true: Tensor of shape `(batch, classes)`, in [0, 1].
        y_pred: Logits of shape `(batch, classes)`.

    Returns:
        A tensor of shape `(batch,)`.

    Raises:
        ValueError: If the shapes differ, as with integer labels.

    Example:

    >>> import numpy as np
    >>> from keras_mixer.recipes import sigmoid_crossentropy
    >>> loss = sigmoid_crossentropy(np.eye(2, 4), np.zeros((2, 4)))
    >>> [round(float(value), 3) for value in loss]  # 4 times log(2)
    [2.773, 2.773]
    """
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    _check_labels(y_true, y_pred)
    losses = ops.binary_crossentropy(y_true, y_pred, from_logits=True)
    return ops.sum(losses, axis=-1)


def _check_labels(y_true, y_pred):
    labels, predictions = tuple(y_true.shape), tuple(y_pred.shape)
    sizes = {labels[-1], predictions[-1]} if labels else {None}
    if len(labels) == len(predictions) and (len(sizes) == 1 or None in sizes):
        return
    raise ValueError(
        "The labels must be one-hot or mixed, with the shape of the "
        f"predictions, (batch, {predictions[-1]}). Convert integer labels: "
        f"`keras.ops.one_hot(labels, {predictions[-1]})`. Received: labels of "
        f"shape {labels}, predictions of shape {predictions}"
    )


def check_outputs(model, loss):
    """Raises an error if the model and the loss certainly do not fit.

    Args:
        model: A Keras model.
        loss: Its loss, as for `model.compile`.

    Raises:
        ValueError: If the model returns probabilities and the loss expects
            logits, or vice versa.
    """
    loss = _single(loss)
    activation, expected = output_activation(model), _expected_by(loss)
    returned = "logits" if activation == "linear" else "probabilities"
    if None in (activation, expected) or returned == expected:
        return
    layer = last_layer(model)
    advice = {
        "logits": "Build the model with `classifier_activation=None`, or its "
        "last layer with `activation=None`",
        "probabilities": "Use a loss with `from_logits=True`, or a last layer "
        'with `activation="softmax"`',
    }
    raise ValueError(
        f"The loss expects {expected}, but the model returns {returned}. "
        f"{advice[expected]}. Received: the last layer '{layer.name}' (of "
        f"type {type(layer).__name__}) and the loss {_name(loss)}"
    )


def probabilities_of(model):
    """Returns the probabilities of the classes that a trained model predicts.

    Args:
        model: A trained model.

    Returns:
        The symbolic output of the model, or that of an activation behind it.

    Raises:
        ValueError: If the last layer and the loss are not known to be those of
            a classification with one label for each image.
    """
    activation = output_activation(model)
    loss = _single(getattr(model, "loss", None))
    check_outputs(model, loss)
    is_categorical = isinstance(loss, _CATEGORICAL) or loss in _FUNCTIONS
    if activation == "softmax" or (
        is_categorical and _expected_by(loss) == "probabilities"
    ):
        return model.outputs[0]
    if not is_categorical and loss is not sigmoid_crossentropy:
        raise ValueError(
            "The model must be a classifier with one label for each image: its "
            "last activation a softmax, or its loss a categorical "
            "cross-entropy or that of a recipe. Use `model.save` for other "
            f"models. Received: the activation {activation}, the loss "
            f"{_name(loss)}"
        )
    options = {"name": "probabilities", "dtype": "float32"}
    if is_categorical:
        return keras.layers.Softmax(**options)(model.outputs[0])
    return keras.layers.Activation("sigmoid", **options)(model.outputs[0])


def check_one_hot_loss(loss):
    """Raises an error if a loss expects integer labels."""
    loss = _single(loss)
    sparse = keras.losses.SparseCategoricalCrossentropy
    if isinstance(loss, sparse) or loss is _SPARSE:
        raise ValueError(
            "The labels of the images are one-hot or mixed. Use "
            "`keras.losses.CategoricalCrossentropy(from_logits=True)`, or the "
            f"loss of a recipe. Received: the loss {_name(loss)}"
        )


def _name(loss):
    return getattr(loss, "__name__", type(loss).__name__)


def _single(loss):
    """Returns the loss of a model with one output, or `None`."""
    losses = keras.tree.flatten(loss)
    if len(losses) != 1:
        return None
    try:
        return keras.losses.get(losses[0])
    except ValueError:  # Keras knows some names only in `compile`
        return None


_SPARSE = keras.losses.sparse_categorical_crossentropy
_CATEGORICAL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
)
_FUNCTIONS = (
    _SPARSE,
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
)


def _expected_by(loss):
    """Returns "logits", "probabilities", or `None` if it is not certain."""
    from_logits = getattr(loss, "from_logits", None)
    if loss is sigmoid_crossentropy or from_logits is True:
        return "logits"
    binary = (
        keras.losses.binary_crossentropy,
        keras.losses.binary_focal_crossentropy,
    )
    if loss in (*_FUNCTIONS, *binary) or from_logits is False:
        return "probabilities"
    return None
