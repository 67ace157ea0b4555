"""The two forms of GELU with which the published weights were trained."""

import math

import keras
from keras import ops

from keras_mixer.types import Tensor


@keras.saving.register_keras_serializable(package="keras_mixer")
def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, with which the published Mixers were trained.

    `"gelu"` names the exact form in Keras (`keras.activations.gelu`); the two
    differ by at most 5e-4. Published ResMLPs and the MIIL Mixers use the exact
    one.

    Source: `jax.nn.gelu`, which `vit_jax/models_mixer.py` of
    google-research/vision_transformer calls with its default, the tanh form.

    Args:
        x: A tensor of any shape.

    Returns:
        A tensor of the same shape and dtype.

    Example:

    >>> from keras_mixer.layers import gelu_tanh
    >>> round(float(gelu_tanh(keras.ops.convert_to_tensor(1.0))), 4)
    0.8412
    """
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="keras_mixer")
def gelu_exact(x: Tensor) -> Tensor:
    """GELU in its exact form, with which the published ResMLPs were trained.

    The layers of this package use it wherever the activation is Keras's
    `"gelu"`. On TensorFlow it is written with `erf`: Keras's form there has
    `erfc`, for which ONNX has no operator. The two differ by at most 1e-6 in
    float32. On JAX and PyTorch it is Keras's.

    Source: arXiv 1606.08415, section 2.

    Args:
        x: A tensor of any shape.

    Returns:
        A tensor of the same shape and dtype.

    Example:

    >>> from keras_mixer.layers import gelu_exact
    >>> round(float(gelu_exact(keras.ops.convert_to_tensor(1.0))), 4)
    0.8413
    """
    # Delete when onnx/tensorflow-onnx#2347 is solved: test_onnx.py then passes
    # without it. JAX keeps Keras's form, since TensorFlow 2.21 cannot
    # read the `erf` of JAX 0.10 in a SavedModel.
    if keras.backend.backend() != "tensorflow":
        return ops.gelu(x, approximate=False)
    return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))
