"""The graph of a functional model: which layer is called on which tensor."""

import collections

import keras

from keras_mixer.keras_private import calls_by_depth


def calls_of(model):
    """Returns the nodes of a model's graph, one for each call of a layer.

    A node has the attributes `operation`, `input_tensors` and `outputs`. Keras
    has no public list of the nodes. `layer.output` is not used instead: if a
    layer is part of several models, it is the output in the first of them.

    Raises:
        ValueError: If the model is neither functional nor `Sequential`.
    """
    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs)
    calls = calls_by_depth(model)
    if calls is None:
        raise ValueError(
            "`model` must be a functional model, or a `Sequential` model with "
            f"a known input shape. Received: model='{model.name}' of type "
            f"{type(model).__name__}"
        )
    return calls


def call_of(model, layer):
    """Returns the node of the only call of a layer in a model.

    Raises:
        ValueError: If the layer is called several times.
    """
    calls = [call for call in calls_of(model) if call.operation is layer]
    if len(calls) != 1:
        raise ValueError(
            f"'{layer.name}' must be called once in the model. "
            f"Received: model='{model.name}' with {len(calls)} calls"
        )
    return calls[0]


def output_of(model, name):
    """Returns the tensor that the layer with this name returns in a model."""
    (output,) = call_of(model, model.get_layer(name)).outputs
    return output


def takers_of(model):
    """Returns `{name of a layer: [layers that use its output]}`.

    `None` in a list means that the output is also an output of the model.
    """
    calls = calls_of(model)
    producers = {
        id(tensor): call.operation.name
        for call in calls
        for tensor in call.outputs
    }
    takers = collections.defaultdict(list)
    for call in calls:
        for tensor in call.input_tensors:
            takers[producers[id(tensor)]].append(call.operation)
    for tensor in model.outputs:
        takers[producers[id(tensor)]].append(None)
    return takers


def follower(layer, takers):
    """Returns the only layer that uses the output of a layer, or `None`.

    Also returns `None` if that layer is called several times.
    """
    if len(takers[layer.name]) != 1:
        return None
    (taker,) = takers[layer.name]
    calls = sum(taken.count(taker) for taken in takers.values())
    return taker if calls == 1 else None


def input_of(model):
    """Returns `model.input`, which a `Sequential` model does not have."""
    return (
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    )
