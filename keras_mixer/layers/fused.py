"""Blocks for inference, with what can be folded into their kernels gone.

They are made by `keras_mixer.fuse`, which folds the weights too.

The offset of the tokens is added to the residual stream, not to the branch. The
branch comes out of token mixing transposed, which in eager PyTorch is a matter
of strides: adding what is laid out otherwise costs more there than the `Affine`
that it replaces.
"""

import keras
from keras import ops

from keras_mixer.layers.mixer import MixerBlock
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import token_shape
from keras_mixer.layers.resmlp import LayerScale
from keras_mixer.layers.resmlp import PerChannel
from keras_mixer.layers.resmlp import TokenLinear


@keras.saving.register_keras_serializable(package="keras_mixer")
class TokenOffset(PerChannel):
    """Adds an offset of its own to each channel of each token.

    Under a mixed policy it computes in float32, as `Affine`.

    Source: what is left of the offsets of two `Aff`, and of the bias, around a
    linear layer over the tokens (arXiv 2105.03404, section 2).

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
        self.offset = self._add_weight("offset", input_shape, "zeros", tokens)

    def call(self, inputs):
        return ops.cast(ops.add(inputs, self.offset), self.compute_dtype)


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
        **config: Arguments of `ResMLPBlock`, but for `layer_scale_init`.
    """

    def __init__(self, **config):
        super().__init__(**config)
        self.token_offset = self._part(TokenOffset, "token_offset")
        self.token_mixing = self._composite(
            TokenLinear, "token_mixing", use_bias=False
        )
        self.token_scale = self._part(LayerScale, "token_scale", init_value=1.0)
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
        )

    def call(self, inputs, training=None):
        y = self.token_scale(self.token_mixing(inputs, training=training))
        x = ops.add(self.token_offset(inputs), self._drop(y, training))
        y = self.channel_mixing(x, training=training)
        return ops.add(x, self._drop(y, training))
