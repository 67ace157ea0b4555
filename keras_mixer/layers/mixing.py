"""What happens inside a block: the two MLPs, and the block that adds them.

How token mixing is written, and why. The MLP over tokens is Keras's `Dense`
between two transpositions, not an `EinsumDense` and not a product from the
left. In a forward pass of a whole B/16 on a CPU, compiled by XLA, the three are
within a tenth of each other; TensorFlow without XLA runs `EinsumDense` a sixth
slower; in eager PyTorch the matrix products take 80 % of token mixing in every
form. What decides is the rest of a model's life. `Dense` is the one form that
every exporter takes (LiteRT refuses the transposed bias of `EinsumDense`), its
weights have the shapes of the published files, and quantisation and LoRA come
from Keras unchanged, which a product written by hand would lose.
"""

from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_rate
from keras_mixer.layers.activations import gelu_exact
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.composite import Composite
from keras_mixer.types import Activation
from keras_mixer.types import Config
from keras_mixer.types import Shape
from keras_mixer.types import Tensor


@keras.saving.register_keras_serializable(package="keras_mixer")
class StochasticDepth(keras.Layer):
    """Drops whole samples of a residual branch, while training.

    Each sample of the batch is dropped on its own, with probability `rate`, and
    those kept are divided by `1 - rate`, so that the expectation is the input.

    Source: arXiv 1603.09382; MLP-Mixer, section 3, lets the rate grow linearly
    over the blocks. The official training code leaves out the division.

    Args:
        rate: Float in [0, 1), the probability that a sample is dropped.
        seed: Optional integer seed.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, ...)`.
        training: Boolean; samples are dropped only if it is `True`.

    Raises:
        ValueError: If `rate` is outside [0, 1).
        TypeError: If `rate` is not a number.

    Example:

    >>> import keras_mixer
    >>> layer = keras_mixer.StochasticDepth(0.5)
    >>> y = layer(keras.ops.ones((4, 3, 2)), training=True)
    >>> sorted(set(keras.ops.convert_to_numpy(y).ravel())) in (
    ...     [0.0, 2.0], [0.0], [2.0])
    True
    """

    def __init__(
        self, rate: float, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # tokens stay where they are
        self.rate = check_rate("rate", rate)
        self.seed = seed
        if self.rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not (training and self.rate):
            return inputs
        return keras.random.dropout(
            inputs,
            self.rate,
            noise_shape=(None,) + (1,) * (len(inputs.shape) - 1),
            seed=self.seed_generator,
        )

    def rematerialized_call(self, layer_call, *args, **kwargs):
        return layer_call  # a second draw would differ from the first

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class _MLP(Composite):
    """Dense, activation, Dense on the last axis, back to its own size."""

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
        self.dropout = self._part(
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
        y = self._activate(self.dense_0(inputs))
        y = self.dense_1(self._drop(y, training))
        return self._drop(y, training)

    def _activate(self, y):
        # The configuration keeps Keras's name, "gelu".
        if self.activation is keras.activations.gelu:
            return gelu_exact(y)
        return self.activation(y)

    def fold(self, arrays):
        """Folds what can be folded of the weights of this block.

        Args:
            arrays: `{path: array}` of the model; changed in place.

        Returns:
            The class of the block that has the folded weights.
        """
        raise NotImplementedError

    def _drop(self, y, training):
        # Calling a layer that does nothing still costs tens of microseconds
        # in eager PyTorch, six times a block.
        if not self.dropout_rate:
            return y
        return self.dropout(y, training=training)

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

    The same two dense layers with an activation between them are applied to
    every token; the output has the channels of the input. There is no norm and
    no residual sum: those are `MixerBlock`'s.

    Source: equation (1) of MLP-Mixer (arXiv 2105.01601), second line.

    Args:
        mlp_dim: Positive integer, the width between the two dense layers
            (the paper's D_C).
        activation: What `keras.activations.get` takes; the tanh form of GELU
            by default.
        dropout_rate: Float in [0, 1), the dropout after each dense layer.
        kernel_initializer: What `keras.initializers.get` takes, for both
            kernels; Flax's default unless given, as in the published Mixers.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean; switches dropout on.

    Input shape:
        `(batch, tokens, channels)`, or any shape that ends in `channels`.

    Output shape:
        The input's.

    Raises:
        ValueError: If `mlp_dim` is below 1, a rate outside [0, 1), or the
            number of channels unknown.
        TypeError: If `mlp_dim` is not an integer or a rate not a number.

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
        self.supports_masking = True  # a token is changed by itself


@keras.saving.register_keras_serializable(package="keras_mixer")
class TokenMixing(_MLP):
    """The MLP that mixes the tokens of each channel, as in MLP-Mixer.

    `ChannelMixing` on the transposed input: the same two dense layers are
    applied to every channel, along the tokens. The number of tokens is fixed
    once the layer is built. There is no norm and no residual sum: those are
    `MixerBlock`'s.

    Source: equation (1) of MLP-Mixer (arXiv 2105.01601), first line.

    Args:
        mlp_dim: Positive integer, the width between the two dense layers
            (the paper's D_S).
        activation: What `keras.activations.get` takes; the tanh form of GELU
            by default.
        dropout_rate: Float in [0, 1), the dropout after each dense layer.
        kernel_initializer: What `keras.initializers.get` takes, for both
            kernels; Flax's default unless given, as in the published Mixers.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean; switches dropout on.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The input's.

    Raises:
        ValueError: If `mlp_dim` is below 1, a rate outside [0, 1), or the
            number of tokens unknown.
        TypeError: If `mlp_dim` is not an integer or a rate not a number.

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
        y = ops.swapaxes(inputs, 1, 2)  # (batch, channels, tokens)
        y = super().call(y, training=training)
        return ops.swapaxes(y, 1, 2)


def token_shape(layer, shape):
    """Refuses a shape that is not of tokens, or not of a known number."""
    if len(shape) != 3 or shape[1] is None:
        raise ValueError(
            f"Layer '{layer.name}' expects inputs of shape (batch, tokens, "
            "channels) with a known number of tokens, since its weights have "
            f"one row for each token. Received: shape={tuple(shape)}"
        )
    return shape


class Block(Composite):
    """The base of the families' blocks: two residual branches, to be dropped.

    Subclasses make the layers of a block in their `__init__`, in the order in
    which they are called, and each is built for the shape of the tokens.
    """

    # Whether `keras_mixer.fuse` has made this block.
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
        # Called once for each branch, it draws anew each time.
        self.stochastic_depth = self._part(
            StochasticDepth, "stochastic_depth", rate=self.stochastic_depth_rate
        )

    @property
    def is_random(self):
        return max(self.dropout_rate, self.stochastic_depth_rate) > 0

    def build(self, input_shape: Shape) -> None:
        shape = token_shape(self, input_shape)
        for layer in self._inner_layers():
            layer.build(shape)

    def _drop(self, y, training):
        if not self.stochastic_depth_rate:
            return y
        return self.stochastic_depth(y, training=training)

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
