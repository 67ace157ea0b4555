"""What a model returns: logits, or probabilities of which kind.

The last layer is asked. The values are not: logits can lie in [0, 1].
"""

import keras

from keras_mixer.keras_private import operation_behind

# Subclasses are left out: they can do something after the activation.
_WITH_KERNEL = (keras.layers.Dense, keras.layers.EinsumDense)
_PROBABILITIES = ("softmax", "sigmoid")


def output_activation(model):
    """Returns the last activation of a model, if there is no doubt about it.

    Args:
        model: A Keras model.

    Returns:
        `"linear"` (the model returns logits), `"softmax"`, `"sigmoid"`, or
        `None` if the model has several outputs, is not functional, or its last
        layer does not tell.
    """
    layer = last_layer(model)
    kind = type(layer)
    if kind is keras.layers.Softmax:
        return "softmax" if layer.axis == -1 else None
    if kind not in (*_WITH_KERNEL, keras.layers.Activation):
        return None
    # The constraint of a kernel can bound what a linear layer returns.
    is_free = kind in _WITH_KERNEL and not layer.kernel_constraint
    if is_free and layer.activation is keras.activations.linear:
        return "linear"
    for name in _PROBABILITIES:
        if layer.activation is getattr(keras.activations, name):
            return name
    return None


def last_layer(model):
    """Returns the layer that computes the only output of a model, or `None`."""
    tensors = getattr(model, "outputs", None) or []
    if len(tensors) != 1:
        return None
    layer = operation_behind(tensors[0])
    return last_layer(layer) if isinstance(layer, keras.Model) else layer
