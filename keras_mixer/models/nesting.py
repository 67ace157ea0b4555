"""Models that contain a model of this package as a layer.

`keras.Sequential([augmentation, backbone, Dense(3)])` is the usual example. The
functions here find the inner model, and rebuild the outer one around another
inner model.
"""

import keras

from keras_mixer.layers.mixing import Block
from keras_mixer.models.cloning import copy_options
from keras_mixer.models.contract import channels_behind
from keras_mixer.models.graph import call_of
from keras_mixer.models.graph import calls_of
from keras_mixer.models.graph import input_of


def is_ours(layer):
    """Returns whether a layer is a model with blocks of this package."""
    return isinstance(layer, keras.Model) and any(
        isinstance(inner, Block) for inner in layer.layers
    )


def inner_models(model):
    """Returns the models of this package in a model, each of them once.

    A model of this package is its own only inner model. Models are also found
    in models and in wrappers such as `TimeDistributed`, at any depth.
    """
    if is_ours(model):
        return [model]
    if isinstance(model, keras.layers.Wrapper):
        return inner_models(model.layer)
    found = []
    for layer in model.layers if isinstance(model, keras.Model) else ():
        found += [each for each in inner_models(layer) if each not in found]
    return found


def check_holds_ours(model):
    """Raises an error if a model contains no model of this package."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model. "
            f"Received: model of type {type(model).__name__}"
        )
    if not inner_models(model):
        raise ValueError(
            "`model` must be a model of this package, or contain one as a "
            "layer. "
            f"Received: model='{model.name}', which has no block of a Mixer or "
            "a ResMLP"
        )


def the_inner_model(model):
    """Returns the only model of this package in a model.

    Raises:
        ValueError: If there is none, or there are several.
        TypeError: If `model` is not a Keras model.
    """
    check_holds_ours(model)
    found = inner_models(model)
    if len(found) > 1:
        names = [inner.name for inner in found]
        raise ValueError(
            "`model` must contain one model of this package. Pass one of the "
            f"inner models, such as `model.get_layer('{names[0]}')`. "
            f"Received: model='{model.name}', which contains {names}"
        )
    return found[0]


def layer_that_holds(model, inner):
    """Returns the layer of a model that is or contains its inner model."""
    layers = [layer for layer in model.layers if inner_models(layer)]
    if len(layers) != 1:
        names = [layer.name for layer in layers]
        raise ValueError(
            f"'{inner.name}' must be in one layer of the model. Pass the inner "
            f"model. Received: model='{model.name}', with '{inner.name}' in "
            f"the layers {names}"
        )
    return layers[0]


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
    inner = the_inner_model(model)
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
