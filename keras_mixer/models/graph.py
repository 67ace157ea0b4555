"""Rebuilds a model with other layers, or around another inner model.

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
from keras_mixer.models.anatomy import call_of
from keras_mixer.models.anatomy import calls_of
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import is_ours
from keras_mixer.models.anatomy import layer_that_holds
from keras_mixer.models.contract import channels_behind
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


def with_front(model, convert):
    """Replaces the inner model and all layers behind it.

    Args:
        model: A model of this package, or a model that contains one.
        convert: Function that takes a model of this package and returns another
            model with the same inputs.

    Returns:
        The converted inner model, with the layers in front of it. All layers
        are shared with `model`.

    Raises:
        ValueError: If there is not exactly one inner model, or it is in a
            wrapper such as `TimeDistributed`.
        TypeError: If `model` is not a Keras model.
    """
    inner = inner_model(model)
    if inner is model:
        return convert(model)
    layer = layer_that_holds(model, inner)
    if isinstance(layer, keras.layers.Wrapper):
        raise ValueError(
            f"The model '{inner.name}' is in the wrapper '{layer.name}'. Pass "
            f"the inner model: `model.get_layer('{layer.name}').layer`. "
            f"Received: model='{model.name}'"
        )
    (tensor,) = call_of(model, layer).input_tensors
    outputs = with_front(layer, convert)(tensor)
    return keras.Model(input_of(model), outputs, name=model.name)


def with_inner(model, convert, sizes=None, name=None):
    """Replaces the inner models. All other layers are copied.

    Args:
        model: A model that contains models of this package.
        convert: Function that takes a model of this package and returns another
            one with the same number of inputs and outputs.
        sizes: Optional pair `(old, new)` of image shapes. Inputs of the old
            shape get the new one, and so do `Resizing` layers.
        name: The name of the new model. The default is the name of `model`.

    Returns:
        A model with the same layers. It shares no weights with `model`, if
        `convert` returns a model that does not.

    Raises:
        ValueError: If the outer model cannot be rebuilt, or the weights of an
            outer layer do not fit the new inner model.
    """
    copies = {}

    def copy_of(layer):
        if id(layer) not in copies:  # a layer can be in several models
            copies[id(layer)] = layer, copied(layer)
        return copies[id(layer)][1]

    def copied(layer):
        if is_ours(layer):
            return convert(layer)
        if isinstance(layer, keras.Model) and inner_models(layer):
            new_name = name if layer is model else None
            return _rebuilt(layer, copy_of, sizes, new_name or layer.name)
        config = layer.get_config()
        if inner_models(layer):  # a wrapper
            return type(layer)(**{**config, "layer": copy_of(layer.layer)})
        if sizes and isinstance(layer, keras.layers.Resizing):
            config |= _sides_of_resizing(config, *sizes)
        return type(layer).from_config(config)

    rebuilt = copy_of(model)
    for layer, copy in copies.values():
        if not inner_models(layer):
            _copy_weights(model, layer, copy)
    return rebuilt


def _rebuilt(model, copy_of, sizes, name):
    """Returns the model with copied layers, not compiled."""
    calls_of(model)  # raises an error for models of other types
    options = {"name": name, "trainable": model.trainable}
    inputs = keras.tree.map_structure(
        lambda tensor: _input(tensor, sizes), input_of(model)
    )
    layers = [copy_of(layer) for layer in model.layers]
    try:
        if isinstance(model, keras.Sequential):
            return keras.Sequential([inputs, *layers], **options)
        clone = keras.models.clone_model(model, inputs, copy_of)
    except ValueError as error:
        raise ValueError(
            "The layers in front of the inner model, or those behind it, do "
            "not fit the new size. Convert the inner model, and build these "
            f"layers again. Received: model='{model.name}' ({error})"
        ) from error
    return keras.Model(clone.input, clone.output, **options)


def _input(tensor, sizes):
    shape = tuple(tensor.shape)
    if sizes and shape[-3:] == sizes[0]:
        shape = (*shape[:-3], *sizes[1])
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)


def _sides_of_resizing(config, old, new):
    old, new = (channels_behind(shape)[:2] for shape in (old, new))
    if (config["height"], config["width"]) != old:
        return {}
    return {"height": new[0], "width": new[1]}


def _copy_weights(model, layer, copy):
    old, new = getattr(layer, "weights", []), getattr(copy, "weights", [])
    if [tuple(w.shape) for w in old] != [tuple(w.shape) for w in new]:
        raise ValueError(
            f"The weights of the layer '{layer.name}' depend on the number of "
            "tokens. Use an inner model with "
            '`pooling="avg"`, or build the layers behind it for the new size. '
            f"Received: model='{model.name}'"
        )
    for variable, value in zip(new, old, strict=True):
        variable.assign(value)
    copy_options(zip(old, new, strict=True))


def input_of(model):
    """Returns `model.input`, which a `Sequential` model does not have."""
    return (
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    )
