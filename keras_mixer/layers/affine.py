"""Layers that scale or shift each channel, and ResMLP's initializer."""

from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_real
from keras_mixer.layers import direct
from keras_mixer.layers.mixing import token_shape
from keras_mixer.types import Config
from keras_mixer.types import Shape
from keras_mixer.types import Tensor


def authors_initializer():
    """Returns a new initializer for one kernel of ResMLP.

    The authors use a truncated normal distribution that is cut off at -2 and 2.
    That is a hundred standard deviations, so it is in effect a normal
    distribution. Keras's `TruncatedNormal` cuts off at two standard deviations,
    so it is not used here. Each kernel needs its own initializer: an
    initializer that is used twice draws the same numbers twice.

    Source: `resmlp_models.py` of facebookresearch/deit.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


class PerChannel(keras.Layer):
    """Base class for layers that act element-wise on the last axis."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # As in Keras's norms: the result is rounded once, at the end.
        self.autocast = False
        self.supports_masking = True  # each token is processed separately

    def _add_weight(self, name, input_shape, initializer, *rows):
        """Adds a weight of shape `(*rows, channels)`."""
        if not input_shape or input_shape[-1] is None:
            raise ValueError(
                f"Layer '{self.name}' expects inputs of shape (batch, tokens, "
                "channels) with a known number of channels, because it has "
                "one weight per channel. "
                f"Received: shape={tuple(input_shape)}"
            )
        return self.add_weight(
            name=name,
            shape=(*rows, input_shape[-1]),
            initializer=initializer,
            autocast=False,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    # Without this method, Keras derives the configuration from the arguments of
    # the constructor. It then accepts only plain values, but a layer inside a
    # block gets its dtype as a policy.
    def get_config(self) -> Config:
        return super().get_config()


@keras.saving.register_keras_serializable(package="keras_mixer")
class Affine(PerChannel):
    """Scales and shifts each channel: `alpha * x + beta`.

    ResMLP uses this layer in place of normalization. It computes no statistics:
    each value is scaled independently of the other tokens and channels. Its
    initial weights make it the identity. Under a mixed dtype policy it computes
    in float32.

    Source: equation (1) of ResMLP (arXiv 2105.03404).

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.

    Input shape:
        `(batch, tokens, channels)`, or any shape that ends in `channels`.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If the number of channels is unknown.

    Example:

    >>> from keras_mixer.layers import Affine
    >>> layer = Affine()
    >>> tuple(layer(keras.ops.ones((2, 6, 5))).shape)
    (2, 6, 5)
    >>> [(weight.name, tuple(weight.shape)) for weight in layer.weights]
    [('alpha', (5,)), ('beta', (5,))]
    """

    def build(self, input_shape: Shape) -> None:
        self.alpha = self._add_weight("alpha", input_shape, "ones")
        self.beta = self._add_weight("beta", input_shape, "zeros")

    def call(self, inputs: Tensor) -> Tensor:
        y = direct.scale_and_shift(self, inputs, self.alpha, self.beta)
        return ops.cast(y, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_mixer")
class LayerScale(PerChannel):
    """Scales each channel: `gamma * x`.

    The layer is the last one of a residual branch. If `gamma` is small at the
    start, a deep network starts near the identity. Under a mixed dtype policy
    the layer computes in float32.

    Source: LayerScale of CaiT (arXiv 2103.17239). Equations (2) and (3) of
    ResMLP (arXiv 2105.03404) have an `Aff` here, which also adds an offset. The
    authors' code (`resmlp_models.py` of facebookresearch/deit) and the
    published weights have no offset, so this layer has none.

    Args:
        init_value: Number, the initial value of all elements of `gamma`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.

    Input shape:
        `(batch, tokens, channels)`, or any shape that ends in `channels`.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If the number of channels is unknown.
        TypeError: If `init_value` is not a number.

    Example:

    >>> from keras_mixer.layers import LayerScale
    >>> layer = LayerScale(0.5)
    >>> print(keras.ops.convert_to_numpy(layer(keras.ops.ones((1, 1, 3)))))
    [[[0.5 0.5 0.5]]]
    """

    def __init__(self, init_value: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_real("init_value", init_value)
        self.init_value = float(init_value)

    def build(self, input_shape: Shape) -> None:
        initializer = keras.initializers.Constant(self.init_value)
        self.gamma = self._add_weight("gamma", input_shape, initializer)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(ops.multiply(inputs, self.gamma), self.compute_dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "init_value": self.init_value}


@keras.saving.register_keras_serializable(package="keras_mixer")
class TokenOffset(PerChannel):
    """Adds an offset, with one value for each token and channel.

    `keras_mixer.fuse` uses this layer in ResMLP. It replaces the offset of the
    `Affine` before the linear layer over tokens, and the bias of that layer.
    Under a mixed dtype policy it computes in float32, like `Affine`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If the number of tokens or channels is unknown.
    """

    def build(self, input_shape):
        _, tokens, _ = token_shape(self, input_shape)
        self.offset = self._add_weight("offset", input_shape, "zeros", tokens)

    def call(self, inputs):
        return ops.cast(ops.add(inputs, self.offset), self.compute_dtype)
