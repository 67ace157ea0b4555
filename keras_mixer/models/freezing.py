"""Freezes the first blocks of a model."""

import keras

from keras_mixer.keras_private import flatten_layers
from keras_mixer.models.anatomy import block_name
from keras_mixer.models.anatomy import blocks_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import norm_of
from keras_mixer.models.anatomy import stem_of


def freeze(model: keras.Model, until: str | int | None) -> keras.Model:
    """Freezes the first layers of a model, and makes all others trainable.

    The model is changed in place: `trainable` of its layers is set. As always
    in Keras, compile the model afterwards.

    Args:
        model: A model built by this package, or a model that contains one as a
            layer.
        until: The last layer to freeze. One of:
            - The name of a block, such as `"block_8"`, or its index. Negative
              indices count from the last block.
            - `"stem"`: only the stem is frozen.
            - `"norm"`: all layers except the head are frozen.
            - `None`: no layer is frozen.

    Returns:
        `model`.

    Raises:
        ValueError: If the model is not one of this package's, contains several
            of them, or has no such block.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> model = keras_mixer.freeze(model, until="block_5")
    >>> [layer.name for layer in model.layers if layer.trainable_variables]
    ['block_6', 'block_7', 'norm', 'predictions']
    """
    inner = inner_model(model)
    layers = {
        "stem": stem_of(inner),
        **blocks_of(inner),
        "norm": norm_of(inner),
    }
    frozen = []
    if until is not None:
        last = block_name(inner, until, others=("stem", "norm"))
        frozen = [*layers.values()][: [*layers].index(last) + 1]
    _set_trainable(model, True)
    for layer in frozen:
        if layer is not None:
            _set_trainable(layer, False)
    return model


def _set_trainable(layer, value):
    # On TensorFlow, an attribute that is set to its present value is ignored,
    # although the inner layers may have another value (Keras 3.15).
    layer.trainable = not value
    layer.trainable = value
    for inner in flatten_layers(layer):
        # Keras would also train the kernel to which LoRA is added.
        if getattr(inner, "lora_enabled", False):
            for variable in inner.variables:
                if variable.name == "kernel":
                    variable.trainable = False
