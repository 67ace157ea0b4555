"""The block of MLP-Mixer, and its form for inference.

Mixer's second norm folds into the MLP behind it, but for the division by the
standard deviation. The first norm is left as it is: behind the dense layer its
scale would have to act on every channel and its offset on every channel and
hidden unit, which is no less work than before it.
"""

from typing import Any

import keras
from keras import ops

from keras_mixer.arguments import check_positive_int
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.folding import fold_norm
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import TokenMixing
from keras_mixer.types import Activation
from keras_mixer.types import Config
from keras_mixer.types import Tensor

# The published Mixer weights were trained with Flax's default, 1e-6; Keras's
# own default is 1e-3.
NORM_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_mixer")
class MixerBlock(Block):
    """One block of MLP-Mixer: token mixing, then channel mixing.

    Each is a residual branch, `x + mixing(norm(x))`, with layer normalisation
    over the channels.

    Source: equation (1) of MLP-Mixer (arXiv 2105.01601); `MixerBlock` of
    `vit_jax/models_mixer.py` in google-research/vision_transformer.

    Args:
        tokens_mlp_dim: Positive integer, the width of the token-mixing MLP
            (the paper's D_S).
        channels_mlp_dim: Positive integer, the width of the channel-mixing MLP
            (the paper's D_C).
        activation: What `keras.activations.get` takes; the tanh form of GELU
            by default.
        dropout_rate: Float in [0, 1), the dropout after each dense layer.
        stochastic_depth_rate: Float in [0, 1), the probability that a sample
            skips a branch while training.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean; switches dropout and stochastic depth on.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The input's.

    Raises:
        ValueError: If a width is below 1, a rate outside [0, 1), or the number
            of tokens unknown.
        TypeError: If a width is not an integer or a rate not a number.

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
        return self._part(
            keras.layers.LayerNormalization,
            name,
            epsilon=NORM_EPSILON,
            **options,
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        y = self.token_norm(_fork(x))
        y = self.token_mixing(y, training=training)
        x = ops.add(x, self._drop(y, training))
        y = self.channel_norm(_fork(x))
        y = self.channel_mixing(y, training=training)
        return ops.add(x, self._drop(y, training))

    def get_config(self) -> Config:
        return {**super().get_config(), "tokens_mlp_dim": self.tokens_mlp_dim}

    def fold(self, arrays):
        fold_norm(
            arrays,
            f"{self.name}/channel_norm",
            f"{self.name}/channel_mixing/dense_0",
        )
        return FusedMixerBlock


def _fork(x):
    """The residual stream, as the norm of a branch is to read it.

    The norm reads its input several times, and the residual sum once more.
    Differentiating all those as uses of one value, JAX adds their cotangents
    one by one, and XLA then recomputes long element-wise chains across blocks:
    twice the time of the whole step on a CPU. With a copy in front, the norm's
    uses are summed on the copy. Elsewhere it would be a pass for nothing.
    """
    return ops.copy(x) if keras.backend.backend() == "jax" else x


@keras.saving.register_keras_serializable(package="keras_mixer")
class FusedMixerBlock(MixerBlock):
    """A `MixerBlock` whose second norm has no weights, for inference."""

    is_fused = True

    def _norm(self, name):
        has_weights = name == "token_norm"
        return super()._norm(name, scale=has_weights, center=has_weights)
