"""Inner layers on PyTorch, computed without calls of Keras layers.

Eager PyTorch runs one operation after the other, so each pass over a tensor and
each call of a Keras layer takes time. Keras 3.15 adds the bias of `Dense` in a
second pass, although PyTorch has a product with a bias. Under a mixed dtype
policy Keras copies the input of a norm twice, although PyTorch's norm accepts
it. A scale and an offset are one operation. A product over the tokens needs no
transposition if the kernel multiplies from the left. The call of a Keras layer
takes tens of microseconds, which matters for small models and single images.
On a CPU without products of 16 bits, PyTorch takes a hundred times as long for
them as for products in float32. There, the products are computed in float32
and the results are rounded.

The functions here compute what the layers compute. LoRA is part of `kernel`. A
layer that does anything else is called: a subclass, one whose `call` was
replaced, one with an activation, a hook or a regularizer of its outputs, one
that is quantized or rematerialized, or that has another dtype. On the other
backends XLA merges these operations, so the layers are always called.
"""

import keras
from keras import ops

from keras_mixer.keras_private import has_hooks
from keras_mixer.keras_private import remat_of
from keras_mixer.layers.stochastic_depth import StochasticDepth
from keras_mixer.optional import require

_PACKAGE = "keras_mixer.layers."
_IS_TORCH = keras.backend.backend() == "torch"

if _IS_TORCH:
    torch = require("torch")
    # PyTorch multiplies 16-bit matrices with oneDNN where these functions
    # return True, and with slow loops elsewhere.
    _SLOW_DTYPES = [
        dtype
        for dtype, name in (
            (torch.bfloat16, "_is_mkldnn_bf16_supported"),
            (torch.float16, "_is_mkldnn_fp16_supported"),
        )
        if not (
            torch.backends.mkldnn.is_available()
            and getattr(torch.ops.mkldnn, name, lambda: False)()
        )
    ]


# The layers of Keras that are computed here, and what they call.
_CALLS = {
    layer: layer.call
    for layer in (keras.layers.Dense, keras.layers.LayerNormalization)
}


def are_direct(owner, x, *layers):
    """Whether the calls of inner layers can be left out.

    What a layer computes is not compared: only its `call` may replace it.

    Args:
        owner: The layer that contains them.
        x: Its input.
        *layers: The inner layers.
    """
    return (
        _IS_TORCH
        and isinstance(x, torch.Tensor)  # and not a symbolic one
        and keras.distribution.distribution() is None
        and not torch.nn.modules.module._has_any_global_hook()
        and all(_is_plain(layer, owner.compute_dtype) for layer in layers)
    )


def _is_plain(layer, dtype):
    return (
        layer.built
        and layer.compute_dtype == dtype
        and layer.quantization_mode is None
        and layer.activity_regularizer is None
        and getattr(remat_of(layer), "mode", None) is None
        and "call" not in vars(layer)
        and "forward" not in vars(layer)
        and not has_hooks(layer)
    )


def are_dense(owner, x, *layers):
    """Whether `dense` and `dense_over_tokens` can replace inner layers.

    They replace layers that are exactly Keras's `Dense`, with no activation.
    """
    return are_direct(owner, x, *layers) and all(
        _is_of_keras(layer, keras.layers.Dense) and is_linear(layer)
        for layer in layers
    )


def _is_of_keras(layer, kind):
    return type(layer) is kind and kind.call is _CALLS[kind]


def is_linear(layer):
    return layer.activation in (None, keras.activations.linear)


def linear(x, kernel, bias):
    """Returns `x @ kernel + bias`, computed in one pass.

    Args:
        x: Tensor of shape `(..., in)`.
        kernel: Tensor or variable of shape `(in, out)`.
        bias: Tensor or variable of shape `(out,)`, or `None`.
    """
    dtype = x.dtype
    x, kernel, bias = _factors(x, kernel, bias)
    return torch.nn.functional.linear(x, kernel.mT, bias).to(dtype)


def dense(layer, x):
    """Returns what a `Dense` layer returns for `x`."""
    return linear(x, layer.kernel, layer.bias)


def dense_over_tokens(layer, x):
    """Returns what a `Dense` layer returns for the second axis of `x`.

    Args:
        layer: `Dense` layer whose kernel has the shape `(tokens, units)`.
        x: Tensor of shape `(batch, tokens, channels)`.

    Returns:
        Tensor of shape `(batch, units, channels)`.
    """
    dtype = x.dtype
    x, kernel, bias = _factors(x, layer.kernel, layer.bias)
    matrix = kernel.mT.expand(x.shape[0], -1, -1)
    if bias is None:
        return torch.bmm(matrix, x).to(dtype)
    return torch.baddbmm(bias[:, None], matrix, x).to(dtype)


def normalize(owner, layer, x):
    """Returns what the layer in place of a norm inside `owner` returns."""
    if not (are_direct(owner, x, layer) and _is_layer_norm(layer, x)):
        return layer(x)
    gamma, beta = _tensors(layer.gamma, layer.beta)
    if x.is_cuda and gamma is not None and gamma.dtype != x.dtype:
        return layer(x)  # only on CPUs the dtypes may differ
    return torch.nn.functional.layer_norm(
        x, x.shape[-1:], gamma, beta, layer.epsilon
    )


def _is_layer_norm(layer, x):
    return (
        _is_of_keras(layer, keras.layers.LayerNormalization)
        and layer.axis in (-1, [-1], [x.ndim - 1])
        and not layer.rms_scaling
    )


def scale_and_shift(layer, x, scale, offset):
    """Returns `x * scale + offset`, computed in one pass where it can be.

    Args:
        layer: The layer that has the variables.
        x: Its input.
        scale: Variable, one value for each channel.
        offset: Variable, one value for each channel.
    """
    if are_direct(layer, x, layer):
        scale, offset = _tensors(scale, offset)
        if x.dtype == scale.dtype:
            return torch.addcmul(offset, x, scale)
    return ops.add(ops.multiply(x, scale), offset)


def call(owner, layer, x, **arguments):
    """Returns what the layer in place of one of this package returns."""
    if are_direct(owner, x, layer) and _is_of_package(layer):
        return layer.call(x, **arguments)
    return layer(x, **arguments)


def _is_of_package(layer):
    return type(layer).call.__module__.startswith(_PACKAGE)


def drop(layer, x, training):
    """Returns what a layer that drops values returns, on each backend.

    A layer with a rate of zero does nothing and is not called: there are six in
    a block.
    """
    is_idle = (
        type(layer) in (keras.layers.Dropout, StochasticDepth)
        and not layer.rate
        and "call" not in vars(layer)
        and not (_IS_TORCH and has_hooks(layer))
    )
    return x if is_idle else layer(x, training=training)


def _factors(x, *variables):
    """The input and the variables of a product, in the dtype to compute in."""
    tensors = [x, *_tensors(*variables)]
    if x.device.type == "cpu" and x.dtype in _SLOW_DTYPES:
        return [t if t is None else t.float() for t in tensors]
    return tensors


def _tensors(*variables):
    return (getattr(variable, "value", variable) for variable in variables)
