"""The two forms of GELU: the tanh form and the exact form."""

import math

import keras
from keras import ops

from keras_mixer.types import Tensor


@keras.saving.register_keras_serializable(package="keras_mixer")
def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU.

    The published Mixers were trained with this form. The published ResMLPs and
    the MIIL Mixers were trained with the exact form, which is Keras's `"gelu"`.
    The two forms differ by at most 5e-4.

    Source: `jax.nn.gelu`. `vit_jax/models_mixer.py` of
    google-research/vision_transformer calls it with its default, the tanh form.

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
    """The exact form of GELU.

    The published ResMLPs were trained with this form. The layers of this
    package call this function if the activation is Keras's `"gelu"`. On JAX
    and PyTorch it is the same as `keras.activations.gelu`. On TensorFlow it
    uses `erf`, because Keras uses `erfc` and ONNX has no operator for `erfc`.
    The two differ by at most 1e-6 in float32.

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
    # Delete the `erf` form when onnx/tensorflow-onnx#2347 is solved:
    # test_export.py then passes without it. JAX keeps Keras's form, because
    # TensorFlow 2.21 cannot read the `erf` of JAX 0.10 in a SavedModel.
    if keras.backend.backend() != "tensorflow":
        return ops.gelu(x, approximate=False)
    return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))
