"""Counts the multiply-adds of a model, by a formula for each layer."""

import collections
import math

import keras

from keras_mixer.arguments import check_model
from keras_mixer.keras_private import flatten_layers
from keras_mixer.layers.affine import PerChannel
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import TokenMixing
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.models.calls import calls_of


def macs(model: keras.Model) -> dict[str, int]:
    """Counts the multiply-adds (MACs) of a model for one image.

    One multiplication with its addition counts as one, so the FLOPs are twice
    as many. What is counted are matrix products and convolutions. Biases,
    norms, activations, sums, means and layers that prepare or augment images
    are not counted, as usual.

    - Quantization does not change the result.
    - LoRA is counted as merged into the kernel, as for inference.

    Source: the table of docs/models.md is computed by this function. The tests
    compare it with the counter of PyTorch, `torch.utils.flop_counter`.

    Args:
        model: A model of this package, with or without its head, or a
            functional or Sequential model that contains one. It may also have
            layers of Keras without weights, norms, `Dense` layers and
            convolutions. The size of its inputs must be known.

    Returns:
        A dict `{path of a layer: multiply-adds}`, in the order of the layers.
        It only has layers with multiply-adds. Nested models have one entry for
        each of their layers, blocks have one for token mixing and one for
        channel mixing, and other layers have one. The sum of the values is the
        total.

    Raises:
        ValueError: If the size of an input is unknown, or the model is not one
            of this package's, or contains a layer without a formula.
        TypeError: If `model` is not a Keras model.

    Example:

    >>> import keras_mixer
    >>> model = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=1, hidden_dim=10, tokens_mlp_dim=7,
    ...     channels_mlp_dim=11, input_shape=(8, 12, 3), classes=5)
    >>> for name, count in keras_mixer.macs(model).items():
    ...     print(name, count)
    stem 2880
    block_0/token_mixing 840
    block_0/channel_mixing 1320
    predictions 50
    >>> sum(keras_mixer.macs(model).values())
    5090
    """
    check_model(model)
    modules = [type(layer).__module__ for layer in flatten_layers(model)]
    if not any(module.startswith("keras_mixer.") for module in modules):
        raise _cannot_count(model, "no layer of this package")
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", [])]
    if not shapes or any(None in shape[1:] for shape in shapes):
        raise ValueError(
            "`model` must be a functional or Sequential model whose inputs "
            "have a known size. Build it with `keras.Input(shape)`. "
            f"Received: model='{model.name}', with inputs of shape {shapes}"
        )
    return {path: count for path, count in _rows(model).items() if count}


def _rows(model):
    """Returns `{path: multiply-adds}` of the layers of a model."""
    rows = collections.Counter()
    for call in calls_of(model):
        rows.update(_rows_of(model, call))
    return rows


def _rows_of(model, call):
    layer = call.operation
    if isinstance(layer, keras.Model):
        rows = _rows(layer)
        return {f"{layer.name}/{path}": rows[path] for path in rows}
    if not call.input_tensors:
        return {}  # an input
    shape, *_ = [tuple(tensor.shape) for tensor in call.input_tensors]
    if isinstance(layer, Block):
        return {
            f"{layer.name}/token_mixing": _mixing(layer.token_mixing, shape),
            f"{layer.name}/channel_mixing": _mixing(
                layer.channel_mixing, shape
            ),
        }
    wrapper = keras.layers.TimeDistributed
    if isinstance(layer, wrapper) and isinstance(layer.layer, keras.Model):
        return {layer.name: shape[1] * sum(_rows(layer.layer).values())}
    for kind, count in _FORMULAS.items():
        if isinstance(layer, kind):
            return {layer.name: count(layer, shape, call.outputs[0].shape)}
    if type(layer).__name__ in _UNKNOWN or not _is_free(layer):
        found = f"'{layer.name}' (of type {type(layer).__name__})"
        raise _cannot_count(model, found)
    return {layer.name: 0}


def _mixing(layer, shape, output=None):
    _, tokens, channels = shape
    if isinstance(layer, TokenLinear):
        return tokens * tokens * channels
    return 2 * tokens * channels * layer.mlp_dim


def _dense(layer, shape, output):
    return math.prod(output[1:]) * shape[-1]


def _conv(layer, shape, output):
    # Each output is a sum over the kernel and the channels of its group.
    return math.prod(output[1:]) * math.prod(layer.kernel.shape[:-1])


_FORMULAS = {
    ChannelMixing: _mixing,
    TokenMixing: _mixing,
    TokenLinear: _mixing,
    keras.layers.Dense: _dense,
    keras.layers.Conv1D: _conv,
    keras.layers.Conv2D: _conv,
    keras.layers.Conv3D: _conv,
}

_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    PerChannel,
)

# Layers without weights and operations that multiply matrices.
_UNKNOWN = {
    "AdditiveAttention",
    "Attention",
    "Dot",
    "Einsum",
    "Lambda",
    "Matmul",
    "Tensordot",
}


def _is_free(layer):
    """Whether a layer or operation has no multiply-adds."""
    is_own = not type(layer).__module__.startswith(("keras.", "keras_mixer."))
    has_weights = any(
        len(weight.shape) > 1 for weight in getattr(layer, "weights", [])
    )
    return isinstance(layer, _NORMS) or not (is_own or has_weights)


def _cannot_count(model, found):
    return ValueError(
        "Only models of this package, and models that contain one, can be "
        "counted. Their other layers must be norms, `Dense` and convolution "
        "layers, or layers of Keras without weights. Use "
        "`torch.utils.flop_counter.FlopCounterMode` for other models on "
        f"PyTorch. Received: model='{model.name}' with {found}"
    )
