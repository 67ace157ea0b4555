"""Blocks for inference, with what can be folded into their kernels gone.

They are made by `keras_mixer.fuse`, which folds the weights too. Trained
further they would compute and learn what their originals do, but for weight
decay and the like, which see other weights.
"""

import keras
from keras import ops

from keras_mixer.layers import Block
from keras_mixer.layers import ChannelMixing
from keras_mixer.layers import MixerBlock
from keras_mixer.layers import token_shape
from keras_mixer.resmlp_layers import PerChannel
from keras_mixer.resmlp_layers import TokenLinear


@keras.saving.register_keras_serializable(package="keras_mixer")
class ScaleAndOffset(PerChannel):
    """`scale * x + offset`, a scale per channel, an offset per token too.

    Under a mixed policy it computes in float32, as `Affine`.

    Source: what remains of two `Aff` around a linear layer that acts on another
    axis than they do (arXiv 2105.03404, section 2).

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.

    Output shape:
        The input's.

    Raises:
        ValueError: If the number of tokens or channels is unknown.
    """

    def build(self, input_shape):
        _, tokens, _ = token_shape(self, input_shape)
        self.scale = self._add_weight("scale", input_shape, "ones")
        self.offset = self._add_weight("offset", input_shape, "zeros", tokens)

    def call(self, inputs):
        y = ops.add(ops.multiply(inputs, self.scale), self.offset)
        return ops.cast(y, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_mixer")
class FusedMixerBlock(MixerBlock):
    """A `MixerBlock` whose second norm has no weights."""

    def _norm(self, name):
        has_weights = name == "token_norm"
        return super()._norm(name, scale=has_weights, center=has_weights)


@keras.saving.register_keras_serializable(package="keras_mixer")
class FusedResMLPBlock(Block):
    """A `ResMLPBlock` with one scale and one offset left, on the tokens' side.

    Args:
        channels_mlp_dim: As in `ResMLPBlock`, and so are the others.
    """

    def __init__(
        self,
        channels_mlp_dim,
        activation="gelu",
        dropout_rate=0.0,
        stochastic_depth_rate=0.0,
        **kwargs,
    ):
        super().__init__(
            channels_mlp_dim,
            activation,
            dropout_rate,
            stochastic_depth_rate,
            **kwargs,
        )
        self.token_mixing = self._composite(
            TokenLinear, "token_mixing", use_bias=False
        )
        self.token_scale = self._part(ScaleAndOffset, "token_scale")
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
        )

    def call(self, inputs, training=None):
        x = inputs
        y = self.token_scale(self.token_mixing(x, training=training))
        x = ops.add(x, self._drop(y, training))
        y = self.channel_mixing(x, training=training)
        return ops.add(x, self._drop(y, training))
