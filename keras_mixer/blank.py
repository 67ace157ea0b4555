"""Building layers without drawing the numbers that loaded weights replace.

Keras builds a layer by drawing its initial weights. Where weights follow, the
draw is thrown away, and it is most of the wait: a Mixer-L/16 takes three to
fifteen times longer to draw than to read. It also leaves the memory in pieces,
up to twice the size of the weights. So kernels begin as zeros instead.

That is no option of the layers, whose initializers stay what a clone of the
model by Keras, or a configuration of it, is to begin with.
"""

import keras


class _Blank(keras.initializers.Zeros):
    """Zeros in the place of `drawn`, until that is put back."""

    def __init__(self, drawn):
        self.drawn = drawn

    def clone(self):
        return _Blank(self.drawn.clone())


def blank(layers):
    """Lets layers that are not yet built begin with kernels of zeros."""
    for layer in _with_kernels(layers):
        layer.kernel_initializer = _Blank(layer.kernel_initializer)


def unblank(layers):
    """Gives layers that were blank, and are built, their initializers back."""
    for layer in _with_kernels(layers):
        if isinstance(layer.kernel_initializer, _Blank):
            layer.kernel_initializer = layer.kernel_initializer.drawn


def clone(model, clone_layer, call_layer, image=None, name=None):
    """Clones a functional model, changed on the way, with blank kernels.

    Args:
        model: The model.
        clone_layer: Makes the new layer of a layer, from its configuration.
        call_layer: Calls a new layer, as `call_layer(layer, *args, **kwargs)`.
        image: The input of the new model, by default as that of the model.
        name: The name of the new model, by default that of the model.
    """

    def clone_blank(layer):
        cloned = clone_layer(layer)
        blank([cloned])
        return cloned

    cloned = keras.models.clone_model(
        model, image, clone_function=clone_blank, call_function=call_layer
    )
    unblank(cloned.layers)
    return keras.Model(cloned.input, cloned.output, name=name or model.name)


def _with_kernels(layers):
    for layer in layers:
        for inner in layer._flatten_layers():
            # An RNN has a property of that name.
            if "kernel_initializer" in vars(inner):
                yield inner
