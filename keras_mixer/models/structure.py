"""The parts of a model: its body, its head, and the layers of the user.

The body is the stem, the blocks and the last norm. The body and the head can be
in different models: `keras.Sequential([backbone, Dense(3)])`.
"""

import keras

from keras_mixer.layers.mixing import Block
from keras_mixer.models.graph import follower
from keras_mixer.models.graph import takers_of
from keras_mixer.models.nesting import inner_models
from keras_mixer.models.nesting import layer_that_holds
from keras_mixer.models.nesting import the_inner_model

_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Softmax,
)


def body_of(model):
    """Returns the layers of the body of a model of this package."""
    return [
        layer
        for layer in model.layers
        if layer.name in ("stem", "norm") or isinstance(layer, Block)
    ]


def added_to(model):
    """Returns the layers of a model that are not in the body.

    Args:
        model: A model of this package, or a model that contains one.
    """
    inner = the_inner_model(model)
    if model is inner:
        body = body_of(model)
        return [layer for layer in model.layers if layer not in body]
    added = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Wrapper) and inner_models(layer):
            layer = layer.layer
        added += added_to(layer) if inner_models(layer) else _leaves(layer)
    return added


def _leaves(layer):
    """Returns the layers of a `Sequential` model, or the layer itself."""
    return layer.layers if isinstance(layer, keras.Sequential) else [layer]


def head_of(model):
    """Returns the `Dense` layer after the mean over the tokens, or `None`.

    There may be dropout between them. Only activations may follow, and no other
    layer outside the body may have weights.

    Args:
        model: A model of this package, or a model that contains one.
    """
    has_mean, head = False, None
    for layer in _behind_body(model, the_inner_model(model)):
        if head is not None:
            if not isinstance(layer, _ACTIVATIONS):
                return None
        elif type(layer) is keras.layers.GlobalAveragePooling1D:
            has_mean = layer.data_format == "channels_last"
        elif type(layer) is keras.layers.Dense and has_mean:
            head = layer
        elif type(layer) is not keras.layers.Dropout:
            return None
    weighted = [layer for layer in added_to(model) if layer.weights]
    return head if weighted == [head] else None


def _behind_body(model, inner):
    """Returns the layers after the body, up to the first branch."""
    if model is inner:
        layer, behind = body_of(model)[-1], []
    else:
        layer = layer_that_holds(model, inner)
        if isinstance(layer, keras.layers.Wrapper):
            return []
        behind = _behind_body(layer, inner)
    takers = takers_of(model)
    while (layer := follower(layer, takers)) is not None:
        behind += _leaves(layer)
    return behind
