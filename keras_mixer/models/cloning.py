"""Building layers without drawing initial weights that loaded weights replace.

Keras draws the initial weights of a layer when it builds it. If weights are
loaded afterwards, the drawn numbers are thrown away. Drawing the weights of a
Mixer-L/16 takes three to fifteen times as long as reading them, and fragments
the memory by up to twice their size. So kernels begin as zeros here.

The initializers of the layers stay as they are: a clone by Keras, or a model
made from the configuration, begins with them.
"""

import contextlib

import keras

from keras_mixer.weights import loading


class _Skipped(keras.initializers.Zeros):
    """Zeros in place of `drawn`, until that is put back."""

    def __init__(self, drawn):
        self.drawn = drawn

    def clone(self):
        return _Skipped(self.drawn.clone())


@contextlib.contextmanager
def skip_init(layers=()):
    """Lets layers that are built in this context begin with kernels of zeros.

    Args:
        layers: Layers that are not yet built.

    Yields:
        A function that takes one more layer, not yet built.
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
    """Clones a functional model, changed on the way, with kernels of zeros.

    What a user has set on a variable (`trainable`, `regularizer`, `constraint`)
    is copied to the variable with the same path.

    Args:
        model: The model.
        clone_layer: Makes the new layer of a layer, from its configuration.
        call_layer: Calls a new layer, as `call_layer(layer, *args, **kwargs)`,
            by default as `layer(*args, **kwargs)`.
        image: The input of the new model, by default as that of the model.
        name: The name of the new model, by default that of the model.
    """

    with skip_init() as skip:

        def clone_unbuilt(layer):
            cloned = clone_layer(layer)
            skip(cloned)
            return cloned

        cloned = keras.models.clone_model(
            model, image, clone_function=clone_unbuilt, call_function=call_layer
        )
    _copy_options(model.layers, cloned.layers)
    return keras.Model(
        cloned.input,
        cloned.output,
        name=name or model.name,
        trainable=model.trainable,  # of the model alone, not of its layers
    )


def _copy_options(layers, new_layers):
    variables = loading.variables_of(layers)
    for path, new in loading.variables_of(new_layers).items():
        if path in variables:
            old = variables[path]
            new.trainable = old.trainable
            new.regularizer = old.regularizer or new.regularizer
            new.constraint = old.constraint or new.constraint


def _with_kernels(layer):
    """The layer and those in it that have an initializer of a kernel."""
    for inner in layer._flatten_layers():
        # An RNN has a property of that name.
        if "kernel_initializer" in vars(inner):
            yield inner
