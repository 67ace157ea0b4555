"""The block of MLP-Mixer, and its fused form for inference.

The scale and the offset of the second norm fold into the MLP after it. The
normalization itself remains. The first norm is not changed: it is followed by a
dense layer over the tokens. After that layer there would be one scale per
channel and one offset per channel and hidden unit, which is not less work.
"""

from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers import direct
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import TokenMixing
from keras_mixer.layers.mixing import fold_norm
from keras_mixer.types import Activation
from keras_mixer.types import Config
from keras_mixer.types import Tensor

# The published Mixer weights were trained with Flax's default, 1e-6. The
# default of Keras is 1e-3.
NORM_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_mixer")
class MixerBlock(Block):
    """One block of MLP-Mixer: token mixing, then channel mixing.

    Each is a residual branch, `x + mixing(norm(x))`. The norm is layer
    normalization over the channels.

    Source: equation (1) of MLP-Mixer (arXiv 2105.01601); `MixerBlock` of
    `vit_jax/models_mixer.py` in google-research/vision_transformer.

    Args:
        tokens_mlp_dim: Positive integer, the width of the token-mixing MLP
            (the paper's D_S).
        channels_mlp_dim: Positive integer, the width of the channel-mixing MLP
            (the paper's D_C).
        activation: Activation function or its name, as for
            `keras.activations.get`. The default is the tanh form of GELU.
        dropout_rate: Float in [0, 1), the dropout rate after each dense layer.
        stochastic_depth_rate: Float in [0, 1), the probability that a sample
            skips a branch while training.
        tiles: Positive integer, how many times resizing by "tile" widened the
            token-mixing MLP. It changes nothing that is computed: a file of the
            model says so, and can be loaded into the model before resizing.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean. If `True`, dropout and stochastic depth are active.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If a width is below 1, a rate is outside [0, 1), or the
            number of tokens is unknown.
        TypeError: If a width is not an integer or a rate is not a number.

    Example:

    >>> import keras_mixer
    >>> block = keras_mixer.MixerBlock(tokens_mlp_dim=7, channels_mlp_dim=11)
    >>> tuple(block(keras.ops.ones((2, 6, 5))).shape)
    (2, 6, 5)
    """

    def __init__(
        self,
        tokens_mlp_dim: int,
        channels_mlp_dim: int,
        activation: Activation = gelu_tanh,
        dropout_rate: float = 0.0,
        stochastic_depth_rate: float = 0.0,
        tiles: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            channels_mlp_dim,
            activation,
            dropout_rate,
            stochastic_depth_rate,
            **kwargs,
        )
        self.tokens_mlp_dim = check_positive_int(
            "tokens_mlp_dim", tokens_mlp_dim
        )
        self.tiles = check_positive_int("tiles", tiles)
        mlp = {"activation": self.activation, "dropout_rate": self.dropout_rate}
        self.token_norm = self._norm("token_norm")
        self.token_mixing = self._composite(
            TokenMixing, "token_mixing", mlp_dim=self.tokens_mlp_dim, **mlp
        )
        self.channel_norm = self._norm("channel_norm")
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            **mlp,
        )

    def _norm(self, name, **options):
        return self._sublayer(
            keras.layers.LayerNormalization,
            name,
            epsilon=NORM_EPSILON,
            **options,
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        y = self._normalize(self.token_norm, x)
        y = direct.call(self, self.token_mixing, y, training=training)
        x = ops.add(x, self._drop(y, training))
        y = self._normalize(self.channel_norm, x)
        y = direct.call(self, self.channel_mixing, y, training=training)
        return ops.add(x, self._drop(y, training))

    def _normalize(self, norm, x):
        return direct.normalize(self, norm, _fork(x))

    def get_config(self) -> Config:
        config = {**super().get_config(), "tokens_mlp_dim": self.tokens_mlp_dim}
        return config if self.tiles == 1 else {**config, "tiles": self.tiles}

    def fold(self, arrays):
        fold_norm(
            arrays,
            f"{self.name}/channel_norm",
            f"{self.name}/channel_mixing/dense_0",
        )
        return FusedMixerBlock


def _fork(x):
    """Returns the input for the norm of a branch: on JAX, a copy of `x`.

    The norm reads its input several times, and the residual sum reads it once
    more. If all of them read the same value, JAX adds their cotangents one by
    one. XLA then recomputes long element-wise chains across blocks, which
    doubles the time of a training step on a CPU. With a copy, the cotangents of
    the norm are added on the copy. On other backends a copy has no benefit.
    """
    return ops.copy(x) if keras.backend.backend() == "jax" else x


@keras.saving.register_keras_serializable(package="keras_mixer")
class FusedMixerBlock(MixerBlock):
    """A `MixerBlock` whose second norm has no weights, for inference."""

    is_fused = True

    def _norm(self, name):
        has_weights = name == "token_norm"
        return super()._norm(name, scale=has_weights, center=has_weights)
