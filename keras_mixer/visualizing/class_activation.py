"""Class activation maps, without gradients.

The head is a linear map of the mean over the tokens. The mean and the linear
map can be swapped: each token has a score for each class, and the mean of these
scores over the tokens, plus the bias, is the logit of the class. These scores
are the map. No approximation is involved.
"""

import keras
import numpy as np

from keras_mixer.models.introspection import grid_of
from keras_mixer.visualizing.checks import check_class
from keras_mixer.visualizing.checks import check_image
from keras_mixer.visualizing.checks import scores_of

# Layers that may follow the head. They do not change what is before them.
_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Softmax,
)
# Layers that do nothing at inference.
_INACTIVE = (keras.layers.Dropout,)


def class_activation_map(
    model: keras.Model,
    image: np.ndarray,
    class_index: int | None = None,
) -> np.ndarray:
    """Returns how much each token of an image speaks for a class.

    The mean of the map, plus the bias of the head, is the logit of the class.
    No gradients are computed.

    Source: equation (2) of Zhou et al. (arXiv 1512.04150).

    Args:
        model: A model of this package whose last layers are the mean over the
            tokens and one `Dense` layer. Dropout between them and activations
            after them are allowed. The model may be fused, or be a layer of
            another model, as in `keras.Sequential([augmentation, backbone,
            keras.layers.Dense(5)])` where `backbone` has `pooling="avg"`.
        image: Array of shape `(height, width, channels)`, or a batch of one
            image as `keras_mixer.load_image` returns.
        class_index: Non-negative integer, the number of the class. The default
            is the class with the highest score.

    Returns:
        A float32 array of shape `(rows, columns)`, the grid of tokens.

    Raises:
        ValueError: If the model has other last layers, or a quantised head; if
            the image has another shape; or if there is no such class.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import numpy as np
    >>> import keras_mixer
    >>> from keras_mixer import visualizing
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> photo = np.random.default_rng(0).uniform(0, 255, (32, 32, 3))
    >>> visualizing.class_activation_map(model, photo, class_index=3).shape
    (8, 8)
    """
    batch = check_image(image, model)
    index = check_class(class_index, scores_of(model, batch))
    head, steps, grid = _parts(model)
    for step in steps:
        batch = step(batch, training=False)
    tokens = keras.ops.convert_to_numpy(batch).astype("float32")[0]
    kernel = keras.ops.convert_to_numpy(head.kernel).astype("float32")
    return (tokens @ kernel[:, index]).reshape(grid)


def _parts(model):
    """Finds the parts of a model, from its end.

    Returns:
        The `Dense` layer of the head; a list of models that compute the tokens
        from the image when they are called one after the other; and the grid of
        the tokens.
    """
    head, outer = None, []
    tensor = _output(model)
    image, level = model.inputs[0], model
    while True:
        layer, given = _origin(tensor, model)
        if isinstance(layer, keras.Model) and given is not None:
            outer.append((image, given, level))
            image, tensor, level = layer.inputs[0], layer.outputs[0], layer
            continue
        if isinstance(layer, keras.layers.InputLayer) and outer:
            image, given, level = outer.pop()
        elif head and _is_mean_of_tokens(layer):
            break
        elif type(layer) is keras.layers.Dense and not head:
            head = layer
        elif not isinstance(layer, _INACTIVE if head else _ACTIVATIONS):
            raise _unsuitable(model, f"the layer '{layer.name}'")
        if given is None:
            raise _unsuitable(model, f"the layer '{layer.name}'")
        tensor = given
    if not any(layer.name == "stem" for layer in level.layers):
        raise _unsuitable(model, "no layer 'stem' before the mean")
    if head.quantization_mode:
        raise _unsuitable(model, f"the quantised layer '{head.name}'")
    steps = [
        keras.Model(taken, passed)
        for taken, passed, _ in outer
        if passed is not taken
    ]
    return head, [*steps, keras.Model(image, given)], grid_of(level)


def _is_mean_of_tokens(layer):
    return (
        type(layer) is keras.layers.GlobalAveragePooling1D
        and layer.data_format == "channels_last"
    )


def _output(model):
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        raise _unsuitable(model, "no or several outputs")
    return outputs[0]


def _origin(tensor, model):
    """Returns the layer that computed a tensor, and its only input.

    The input is `None` if the layer has no input or several.
    """
    layer, node, _ = tensor._keras_history
    given = layer._inbound_nodes[node].input_tensors
    if not isinstance(layer, keras.Layer):
        raise _unsuitable(model, f"the operation '{layer.name}'")
    return layer, given[0] if len(given) == 1 else None


def _unsuitable(model, found):
    return ValueError(
        "A class activation map needs a model of this package that ends in the "
        "mean over the tokens and one `Dense` layer that is not quantised. Use "
        "`occlusion_map`, which works for other models too. "
        f"Received: model='{model.name}' with {found}"
    )
