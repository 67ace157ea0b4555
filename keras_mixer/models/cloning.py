"""Building layers without drawing initial weights that loaded weights replace.

Keras draws the initial weights of a layer when it builds the layer. If weights
are loaded afterwards, the drawn numbers are not used. Drawing the weights of a
Mixer-L/16 takes three to fifteen times as long as reading them, and fragments
up to twice their size of memory. Therefore the kernels are zeros at first.

The initializers of the layers are restored. Keras uses them if it clones the
model or creates it from its configuration.
"""

import contextlib

import keras

from keras_mixer.keras_private import flatten_layers
from keras_mixer.weights import loading


class _Skipped(keras.initializers.Zeros):
    """Zeros. Replaces the initializer `drawn` until that is restored."""

    def __init__(self, drawn):
        self.drawn = drawn

    def clone(self):
        return _Skipped(self.drawn.clone())


@contextlib.contextmanager
def skip_init(layers=()):
    """Context manager in which layers are built with kernels of zeros.

    Args:
        layers: The layers. They must not be built yet.

    Yields:
        A function that adds one more layer. It must not be built yet.
    """
    skipped = []

    def skip(layer):
        skipped.append(layer)
        for inner in _with_kernels(layer):
            inner.kernel_initializer = _Skipped(inner.kernel_initializer)

    for layer in layers:
        skip(layer)
    try:
        yield skip
    finally:
        for layer in skipped:
            for inner in _with_kernels(layer):
                if isinstance(inner.kernel_initializer, _Skipped):
                    inner.kernel_initializer = inner.kernel_initializer.drawn


def clone(model, clone_layer, call_layer=None, image=None, name=None):
    """Clones a functional model with changed layers and kernels of zeros.

    The attributes `trainable`, `regularizer` and `constraint` of each variable
    are copied to the variable with the same path.

    Args:
        model: The model.
        clone_layer: Function that takes a layer and returns a new one, created
            from its configuration.
        call_layer: Function `call_layer(layer, *args, **kwargs)` that calls a
            new layer. The default calls `layer(*args, **kwargs)`.
        image: The only input of the new model. The default is an input like
            that of `model`.
        name: The name of the new model. The default is the name of `model`.
    """

    if image is not None:
        image = keras.tree.pack_sequence_as(model.input, [image])

    with skip_init() as skip:

        def clone_unbuilt(layer):
            cloned = clone_layer(layer)
            skip(cloned)
            return cloned

        cloned = keras.models.clone_model(
            model, image, clone_function=clone_unbuilt, call_function=call_layer
        )
    _copy_options_by_path(model.layers, cloned.layers)
    return keras.Model(
        cloned.input,
        cloned.output,
        name=name or model.name,
        trainable=model.trainable,  # does not change the layers
    )


def _copy_options_by_path(layers, new_layers):
    variables = loading.variables_of(layers)
    new_variables = loading.variables_of(new_layers)
    copy_options(
        (variables[path], new_variables[path])
        for path in new_variables
        if path in variables
    )


def copy_options(pairs):
    """Copies what a user can set on a variable, for pairs `(old, new)`."""
    for old, new in pairs:
        new.trainable = old.trainable
        new.regularizer = old.regularizer or new.regularizer
        new.constraint = old.constraint or new.constraint


def _with_kernels(layer):
    """Yields the layer and its inner layers that have a kernel initializer."""
    for inner in flatten_layers(layer):
        # Not `hasattr`: an RNN has a property with this name.
        if "kernel_initializer" in vars(inner):
            yield inner
