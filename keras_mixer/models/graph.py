"""Makes a model from a model: with other layers, or another inner model.

Keras draws the initial weights of a layer when it builds the layer. If weights
are loaded afterwards, the drawn numbers are not used. Drawing the weights of a
Mixer-L/16 takes three to fifteen times as long as reading them, and fragments
up to twice their size of memory. Therefore the kernels are zeros at first.

The initializers of the layers are restored. Keras uses them if it clones the
model or creates it from its configuration.
"""

import contextlib

import keras

from keras_mixer.keras_private import calls_by_depth
from keras_mixer.keras_private import flatten_layers
from keras_mixer.models.anatomy import inner_model
from keras_mixer.models.anatomy import inner_models
from keras_mixer.models.anatomy import layer_that_holds
from keras_mixer.models.calls import call_of
from keras_mixer.models.calls import calls_of
from keras_mixer.models.calls import input_of
from keras_mixer.models.contract import channels_behind
from keras_mixer.weights import assigning
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


def _with_kernels(layer):
    """Yields the layer and its inner layers that have a kernel initializer."""
    for inner in flatten_layers(layer):
        # Not `hasattr`: an RNN has a property with this name.
        if "kernel_initializer" in vars(inner):
            yield inner


def rebuild(model, change, *, gone=(), sizes=None, name=None):
    """Rebuilds the graph of a model with changed layers.

    All other layers are copied with their weights, and so is what a user can
    set on a variable. The new model shares no weights with `model`.

    Args:
        model: A functional or `Sequential` model, or a subclass of them, whose
            methods are kept.
        change: Function that takes a layer and returns the one in its place, or
            `None` if it is only copied. A layer that is not built is built with
            kernels of zeros, and the caller sets its weights.
        gone: Layers that are left out. Each has one input and one output.
        sizes: Optional pair `(old, new)` of image shapes. Inputs of the old
            shape get the new one, and so do `Resizing` layers.
        name: The name of the new model. The default is the name of `model`.

    Returns:
        A model that is not compiled.

    Raises:
        ValueError: If the model is of another type, or a layer does not fit the
            new size.
    """
    with skip_init() as skip:
        layers = _Layers(change, gone, sizes, skip)
        rebuilt = _rebuilt(model, layers, name or model.name)
    for layer, copy in layers.copied:
        _copy_weights(model, layer, copy)
    for layer, new in layers.changed:
        _copy_options_by_path(layer, new)
    return rebuilt


class _Layers:
    """The layers of a rebuilt model. See `rebuild` for the arguments."""

    def __init__(self, change, gone, sizes, skip):
        self._change = change
        self._gone = gone
        self.sizes = sizes
        self._skip = skip
        self._made = {}
        self.changed = []
        self.copied = []

    def make(self, layer):
        """Returns the layer in the place of a layer, `None` if it is gone."""
        if layer in self._gone:
            return None
        if id(layer) not in self._made:  # it can be in several models
            new = self._changed(layer)
            self._made[id(layer)] = self._copy(layer) if new is None else new
        return self._made[id(layer)]

    def _changed(self, layer):
        new = self._change(layer)
        if new is not None:
            self.changed.append((layer, new))
            if not new.built:
                self._skip(new)
        return new

    def _copy(self, layer):
        if isinstance(layer, keras.Model) and (
            inner_models(layer) or (self.sizes and _takes_images(layer))
        ):
            return _rebuilt(layer, self, layer.name)
        if isinstance(layer, keras.layers.Lambda):
            return layer  # it has no weights, and Keras refuses to copy it
        config = layer.get_config()
        if isinstance(layer, keras.layers.Wrapper) and inner_models(layer):
            return type(layer)(**{**config, "layer": self.make(layer.layer)})
        if self.sizes and isinstance(layer, keras.layers.Resizing):
            config |= _sides_of_resizing(config, *self.sizes)
        copy = type(layer).from_config(config)
        if isinstance(layer, keras.Layer):  # not an operation of `keras.ops`
            self._skip(copy)
            self.copied.append((layer, copy))
        return copy


def _takes_images(model):
    is_sequential = isinstance(model, keras.Sequential) and model.built
    if not is_sequential and calls_by_depth(model) is None:
        return False  # it has no graph, and Keras copies it
    return any(len(x.shape) == 4 for x in keras.tree.flatten(input_of(model)))


def _rebuilt(model, layers, name):
    """Returns the model with new layers, not compiled."""
    calls_of(model)  # raises an error for models of other types
    kind = _class_of(model)
    options = {"name": name, "trainable": model.trainable}
    inputs = keras.tree.map_structure(
        lambda tensor: _input(tensor, layers.sizes), input_of(model)
    )
    made = [
        layers.make(layer)
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    try:
        if isinstance(model, keras.Sequential):
            made = [layer for layer in made if layer is not None]
            return kind([inputs, *made], **options)
        # Keras would compile the clone of a compiled model.
        plain = keras.Model(model.input, model.output)
        clone = keras.models.clone_model(
            plain, inputs, layers.make, call_function=_call
        )
        return kind(clone.input, clone.output, **options)
    except ValueError as error:
        raise ValueError(
            "A layer in front of the blocks, or behind them, does not fit the "
            "new size. Resize the model that has the blocks, and build the "
            f"other layers again. Received: model='{model.name}' ({error})"
        ) from error


def _call(layer, *args, **kwargs):
    return args[0] if layer is None else layer(*args, **kwargs)


def _class_of(model):
    if isinstance(model, keras.Sequential):
        return _class_like(keras.Sequential, model)
    return _class_like(type(keras.Model(model.input, model.output)), model)


def _class_like(plain, model):
    """Returns the class of a model, which may have its own `train_step`.

    Args:
        plain: The class whose arguments it must take.
    """
    kind = type(model)
    if kind.__init__ is plain.__init__:
        return kind
    raise ValueError(
        f"A model of the class `{kind.__name__}` cannot be built again, since "
        "its `__init__` may take other arguments. Use `keras.Model(model.input,"
        f" model.output)`, and make a `{kind.__name__}` of the new model. "
        f"Received: model='{model.name}'"
    )


def like(model, made):
    """Returns a model that was made from `model`, in the class of `model`."""
    if type(model) in (keras.Sequential, type(made)):
        return made
    kind = _class_like(type(made), model)
    return kind(made.input, made.output, name=made.name)


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
    old, new = layer.weights, copy.weights
    if [tuple(w.shape) for w in old] != [tuple(w.shape) for w in new]:
        raise ValueError(
            f"The weights of the layer '{layer.name}' depend on the number of "
            "tokens. Use an inner model with "
            '`pooling="avg"`, or build the layers behind it for the new size. '
            f"Received: model='{model.name}'"
        )
    for variable, value in zip(new, old, strict=True):
        assigning.copy_value(value, variable)
    for inner in flatten_layers(copy):
        if isinstance(inner, keras.layers.Normalization):
            inner.finalize_state()  # it computes with copies of its weights
    _copy_options(zip(old, new, strict=True))


def _copy_options_by_path(layer, copy):
    old = loading.variables_of([layer])
    new = loading.variables_of([copy])
    _copy_options((old[path], new[path]) for path in new if path in old)


def _copy_options(pairs):
    """Copies what a user can set on a variable, for pairs `(old, new)`."""
    for old, new in pairs:
        new.trainable = old.trainable
        new.regularizer = old.regularizer or new.regularizer
        new.constraint = old.constraint or new.constraint


def with_front(model, convert):
    """Replaces the inner model and all layers behind it.

    Args:
        model: A model of this package, or a model that contains one.
        convert: Function that takes a model of this package and returns the new
            outputs, computed from tensors of this model.

    Returns:
        The inner model with the new outputs, and the layers in front of it. All
        layers are shared with `model`.

    Raises:
        ValueError: If there is not exactly one inner model, or it is in a
            wrapper such as `TimeDistributed`.
        TypeError: If `model` is not a Keras model.
    """
    inner = inner_model(model)
    if inner is model:
        return keras.Model(input_of(model), convert(model), name=model.name)
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
