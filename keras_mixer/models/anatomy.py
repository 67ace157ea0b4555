"""The parts of a model: the models in it, its stem, blocks, norm and head.

This is the only module that finds them. A model may be built by this package,
loaded from a file, have another head, or be a layer of another model, as in
`keras.Sequential([backbone, Dense(3)])`. The body is the stem, the blocks and
the last norm.
"""

import operator
from collections.abc import Sequence

import keras

from keras_mixer.arguments import check_model
from keras_mixer.keras_private import flatten_layers
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.mixing import Block
from keras_mixer.models.calls import calls_of
from keras_mixer.models.calls import follower
from keras_mixer.models.calls import takers_of
from keras_mixer.weights import loading
from keras_mixer.weights import naming

_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Softmax,
)
_NORMS = (keras.layers.LayerNormalization, Affine)


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
    check_model(model)
    if not inner_models(model):
        raise ValueError(
            "`model` must be a model of this package, or contain one as a "
            "layer. "
            f"Received: model='{model.name}', which has no block of a Mixer or "
            "a ResMLP"
        )


def inner_model(model):
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
            f"'{inner.name}' must be in one layer of the model. Use the inner "
            f"model. Received: model='{model.name}', with '{inner.name}' in "
            f"the layers {names}"
        )
    return layers[0]


def is_fused(model):
    """Returns whether a model was created by `keras_mixer.fuse`."""
    return isinstance(model, keras.Model) and any(
        getattr(layer, "is_fused", False) for layer in model.layers
    )


def family_of(model):
    """Returns the name of the family of a model.

    Raises:
        ValueError: If the model is not one of this package's, or is quantized
            or fused.
        TypeError: If `model` is not a Keras model.
    """
    check_model(model)
    if is_fused(model):
        raise ValueError(
            f"'{model.name}' is fused. Use the model that it was made from."
        )
    family = naming.family_of(loading.variables_of(model.layers))
    if family is None:
        raise ValueError(
            "`model` must be a model of this package, with the original names "
            "of its weights. Resize, fuse or export a model before it is "
            f"quantized. Received: model='{model.name}'"
        )
    return family


def grid_of(model):
    """Returns the rows and columns of the tokens of a model.

    Raises:
        ValueError: If the blocks are not behind a grid of tokens.
    """
    for call, is_grid in _calls_in_front(model):
        if is_grid:
            return tuple(call.outputs[0].shape[1:3])
    raise ValueError(
        "`model` must have a stem: a layer that makes a grid of tokens, such "
        "as a convolution, and a `Reshape` layer behind it. "
        f"Received: model='{model.name}'"
    )


def stem_of(model):
    """Returns the layer with weights that makes the tokens, or `None`."""
    is_in_front = False
    for call, is_grid in _calls_in_front(model):
        is_in_front = is_in_front or is_grid
        if is_in_front and getattr(call.operation, "weights", None):
            return call.operation
    return None


def _calls_in_front(model):
    """Yields the calls in front of the first block, the last of them first.

    Each with whether it returns the grid of the tokens.
    """
    calls = calls_of(model)
    producers = {id(tensor): call for call in calls for tensor in call.outputs}
    call = next(call for call in calls if isinstance(call.operation, Block))
    tokens = call.outputs[0].shape[1]
    while len(call.input_tensors) == 1:
        call = producers[id(call.input_tensors[0])]
        shape = call.outputs[0].shape
        yield (
            call,
            len(shape) == 4
            and shape[1:3].count(None) == 0
            and (shape[1] * shape[2] == tokens),
        )


def norm_of(model):
    """Returns the norm behind the last block, or `None`."""
    takers = takers_of(model)
    name = list(blocks_of(model))[-1]
    norms = [x for x in takers[name] if isinstance(x, _NORMS)]
    return norms[0] if norms else None


def weights_of(model):
    """Returns `{path: array}` of all weights of a model. LoRA is merged."""
    return weights_of_layers(model.layers)


def weights_of_layers(layers):
    """Returns `{path: array}` of all weights of layers. LoRA is merged."""
    merged = {
        id(variable): keras.ops.convert_to_numpy(inner.kernel)
        for layer in layers
        for inner in flatten_layers(layer)
        if getattr(inner, "lora_enabled", False)
        for variable in inner.weights
        if variable.name == "kernel"
    }
    return {
        path: merged[id(variable)]
        if id(variable) in merged
        else variable.numpy()
        for path, variable in loading.variables_of(layers).items()
    }


def blocks_of(model):
    """Returns `{name: block}` of a model of this package, in order."""
    return {
        layer.name: layer for layer in model.layers if isinstance(layer, Block)
    }


def block_name(model, block, others=()):
    """Returns the name of a block.

    Args:
        model: A model of this package.
        block: Name or index of a block. A negative index counts from the last.
        others: Names of layers that are accepted too.

    Raises:
        ValueError: If there is no such block. The message lists the names.
        TypeError: If `block` is neither a string nor an integer.
    """
    names = list(blocks_of(model))
    known = f"{', '.join([*others, *names])}, or an index such as -1"
    if isinstance(block, str):
        if block in (*others, *names):
            return block
        raise ValueError(
            f"There is no block '{block}' in '{model.name}'. Use one of: "
            f"{known}."
        )
    try:
        index = operator.index(block)
    except TypeError:
        index = None
    if index is None or isinstance(block, bool):
        raise TypeError(
            f"A block must be a name or an index. Use one of: {known}. "
            f"Received: {block!r} (of type {type(block).__name__})"
        )
    if not -len(names) <= index < len(names):
        raise ValueError(
            f"There is no block {index} in '{model.name}', which has "
            f"{len(names)} blocks. Use one of: {known}."
        )
    return names[index]


def block_names(model, blocks):
    """Returns the names of blocks, each of them once.

    Args:
        model: A model of this package.
        blocks: Name or index of a block, a list of them, or "all".
    """
    if isinstance(blocks, str) and blocks == "all":
        return list(blocks_of(model))
    if isinstance(blocks, str) or not isinstance(blocks, Sequence):
        blocks = [blocks]
    if not blocks:
        raise ValueError(
            "`blocks` must have at least one block, or be 'all'. "
            f"Received: blocks={blocks}"
        )
    return list(dict.fromkeys(block_name(model, each) for each in blocks))


def body_of(model):
    """Returns the layers of the body of a model of this package."""
    parts = [stem_of(model), *blocks_of(model).values(), norm_of(model)]
    return [layer for layer in parts if layer is not None]


def added_to(model):
    """Returns the layers of a model that are not in the body.

    Args:
        model: A model of this package, or a model that contains one.
    """
    inner = inner_model(model)
    if model is inner:
        body = body_of(model)
        return [layer for layer in model.layers if layer not in body]
    added = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Wrapper) and inner_models(layer):
            layer = layer.layer
        added += added_to(layer) if inner_models(layer) else leaves(layer)
    return added


def head_of(model):
    """Returns the `Dense` layer after the mean over the tokens, or `None`.

    There may be dropout between them. Only activations may follow, and no other
    layer outside the body may have weights.

    Args:
        model: A model of this package, or a model that contains one.
    """
    has_mean, head = False, None
    for layer in _behind_body(model, inner_model(model)):
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
        behind += leaves(layer)
    return behind


def leaves(layer):
    """Returns the layers of a `Sequential` model, or the layer itself."""
    return layer.layers if isinstance(layer, keras.Sequential) else [layer]
