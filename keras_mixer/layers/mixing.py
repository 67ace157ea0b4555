"""The two MLPs, stochastic depth, and the base class of the blocks.

How token mixing is implemented, and why. The MLP over tokens is Keras's `Dense`
between two transpositions. Alternatives are `EinsumDense` and a matrix product
from the left. Compiled by XLA on a CPU, the three differ by less than 10 % in a
forward pass of a whole B/16. All exporters support `Dense` (LiteRT refuses the
transposed bias of `EinsumDense`). Its weights have the shapes of the published
files. Keras can quantize it and add LoRA to it. On PyTorch, where XLA does not
merge the operations, the same layers are multiplied from the left: `direct.py`.
"""

from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_rate
from keras_mixer.layers import direct
from keras_mixer.layers.activations import gelu_exact
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.composite import Composite
from keras_mixer.layers.stochastic_depth import StochasticDepth
from keras_mixer.types import Activation
from keras_mixer.types import Config
from keras_mixer.types import Shape
from keras_mixer.types import Tensor


class _MLP(Composite):
    """Dense, activation, Dense along the last axis, whose size is kept."""

    def __init__(
        self,
        mlp_dim: int,
        activation: Activation = gelu_tanh,
        dropout_rate: float = 0.0,
        kernel_initializer: Any = "lecun_normal",  # Flax's default
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlp_dim = check_positive_int("mlp_dim", mlp_dim)
        self.activation = keras.activations.get(activation)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dense_0 = self._dense("dense_0", self.mlp_dim)
        self.dropout = self._sublayer(
            keras.layers.Dropout, "dropout", rate=self.dropout_rate
        )

    @property
    def is_random(self):
        return self.dropout_rate > 0

    def build(self, input_shape: Shape) -> None:
        size = input_shape[-1]
        if size is None:
            raise ValueError(
                f"Layer '{self.name}' expects inputs of shape (batch, tokens, "
                "channels) with a known size of the axis that it mixes. "
                f"Received: shape={tuple(input_shape)}"
            )
        self.dense_1 = self._dense("dense_1", size)
        self.dense_0.build(input_shape)
        self.dense_1.build((*input_shape[:-1], self.mlp_dim))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if direct.are_dense(self, inputs, self.dense_0, self.dense_1):
            return self._mix(direct.dense, inputs, training)
        return self._mix(_call, inputs, training)

    def _mix(self, dense, x, training):
        y = self._activate(dense(self.dense_0, x))
        y = dense(self.dense_1, direct.drop(self.dropout, y, training))
        return direct.drop(self.dropout, y, training)

    def _activate(self, y):
        # `self.activation` is not replaced, so that the configuration stores
        # Keras's name, "gelu".
        if self.activation is keras.activations.gelu:
            return gelu_exact(y)
        return self.activation(y)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="keras_mixer")
class ChannelMixing(_MLP):
    """The MLP that mixes the channels of each token, as in MLP-Mixer.

    The same two dense layers, with an activation between them, are applied to
    each token. The output has as many channels as the input. The norm and the
    residual sum are not part of this layer, but of `MixerBlock`.

    Source: equation (1) of MLP-Mixer (arXiv 2105.01601), second line.

    Args:
        mlp_dim: Positive integer, the width between the two dense layers
            (the paper's D_C).
        activation: Activation function or its name, as for
            `keras.activations.get`. The default is the tanh form of GELU.
        dropout_rate: Float in [0, 1), the dropout rate after each dense layer.
        kernel_initializer: Initializer of both kernels, as for
            `keras.initializers.get`. The default is Flax's default, as in the
            published Mixers.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean. If `True`, dropout is active.

    Input shape:
        `(batch, tokens, channels)`, or any shape that ends in `channels`.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If `mlp_dim` is below 1, a rate is outside [0, 1), or the
            number of channels is unknown.
        TypeError: If `mlp_dim` is not an integer or a rate is not a number.

    Example:

    >>> import keras_mixer
    >>> layer = keras_mixer.ChannelMixing(mlp_dim=11)
    >>> tuple(layer(keras.ops.ones((2, 6, 5))).shape)
    (2, 6, 5)
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(5, 11), (11,), (11, 5), (5,)]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_masking = True  # each token is processed separately


@keras.saving.register_keras_serializable(package="keras_mixer")
class TokenMixing(_MLP):
    """The MLP that mixes the tokens of each channel, as in MLP-Mixer.

    The same two dense layers, with an activation between them, are applied to
    each channel, along the tokens. This is `ChannelMixing` on the transposed
    input. The number of tokens cannot change after the layer is built. The norm
    and the residual sum are not part of this layer, but of `MixerBlock`.

    Source: equation (1) of MLP-Mixer (arXiv 2105.01601), first line.

    Args:
        mlp_dim: Positive integer, the width between the two dense layers
            (the paper's D_S).
        activation: Activation function or its name, as for
            `keras.activations.get`. The default is the tanh form of GELU.
        dropout_rate: Float in [0, 1), the dropout rate after each dense layer.
        kernel_initializer: Initializer of both kernels, as for
            `keras.initializers.get`. The default is Flax's default, as in the
            published Mixers.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean. If `True`, dropout is active.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If `mlp_dim` is below 1, a rate is outside [0, 1), or the
            number of tokens is unknown.
        TypeError: If `mlp_dim` is not an integer or a rate is not a number.

    Example:

    >>> import keras_mixer
    >>> layer = keras_mixer.TokenMixing(mlp_dim=7)
    >>> tuple(layer(keras.ops.ones((2, 6, 5))).shape)
    (2, 6, 5)
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(6, 7), (7,), (7, 6), (6,)]
    """

    def build(self, input_shape: Shape) -> None:
        batch, tokens, channels = token_shape(self, input_shape)
        super().build((batch, channels, tokens))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if direct.are_dense(self, inputs, self.dense_0, self.dense_1):
            return self._mix(direct.dense_over_tokens, inputs, training)
        y = ops.swapaxes(inputs, 1, 2)  # (batch, channels, tokens)
        return ops.swapaxes(self._mix(_call, y, training), 1, 2)


def _call(layer, x):
    return layer(x)


def token_shape(layer, shape):
    """Returns `shape`. Raises an error unless it is the shape of tokens.

    The number of tokens must be known.
    """
    if len(shape) != 3 or shape[1] is None:
        raise ValueError(
            f"Layer '{layer.name}' expects inputs of shape (batch, tokens, "
            "channels) with a known number of tokens, since its weights have "
            f"one row for each token. Received: shape={tuple(shape)}"
        )
    return shape


class Block(Composite):
    """Base class of all blocks: two residual branches with stochastic depth.

    Subclasses create the layers of a block in `__init__`, in the order in which
    they are called. Each layer is built with the shape of the tokens.
    """

    # Whether `keras_mixer.fuse` created this block.
    is_fused = False

    def __init__(
        self,
        channels_mlp_dim: int,
        activation: Activation,
        dropout_rate: float = 0.0,
        stochastic_depth_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels_mlp_dim = check_positive_int(
            "channels_mlp_dim", channels_mlp_dim
        )
        self.activation = keras.activations.get(activation)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.stochastic_depth_rate = check_rate(
            "stochastic_depth_rate", stochastic_depth_rate
        )
        # Called once for each branch: each call draws new random numbers.
        self.stochastic_depth = self._sublayer(
            StochasticDepth, "stochastic_depth", rate=self.stochastic_depth_rate
        )

    @property
    def is_random(self):
        return max(self.dropout_rate, self.stochastic_depth_rate) > 0

    def build(self, input_shape: Shape) -> None:
        shape = token_shape(self, input_shape)
        for layer in self._inner_layers():
            layer.build(shape)

    def fold(self, arrays):
        """Folds the scales and offsets of this block into other weights.

        Args:
            arrays: `{path: array}` of the model. Changed in place.

        Returns:
            The class of the fused block.
        """
        raise NotImplementedError

    def _drop(self, y, training):
        return direct.drop(self.stochastic_depth, y, training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "channels_mlp_dim": self.channels_mlp_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
            "stochastic_depth_rate": self.stochastic_depth_rate,
        }


# What the methods `fold` of the blocks and `keras_mixer.fuse` share. Weights
# are NumPy arrays, `{path: array}`. Scales and offsets are converted to float64
# when they are removed. The products are then float64 too, so each folded
# weight is rounded only once.


def fold_norm(arrays, norm, dense):
    """Folds the scale and offset of a norm into the dense layer after it."""
    scale, offset = pop_norm(arrays, norm)
    kernel, bias = (f"{dense}/{name}" for name in ("kernel", "bias"))
    arrays[bias] = arrays[bias] + offset @ arrays[kernel]
    arrays[kernel] = arrays[kernel] * scale[:, None]


def pop_norm(arrays, norm):
    """Removes and returns the scale and offset of an `Affine` or a norm."""
    name = "alpha" if f"{norm}/alpha" in arrays else "gamma"
    return pop(arrays, f"{norm}/{name}"), pop(arrays, f"{norm}/beta")


def pop(arrays, path):
    return arrays.pop(path).astype("float64")
