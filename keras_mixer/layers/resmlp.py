"""The block of ResMLP, and its form for inference.

On the side of the channels, each `Affine` and `LayerScale` folds into the dense
layer beside it. On the side of the tokens the linear layer acts along another
axis, so nothing folds into its matrix: a scale and an offset before it, a bias
within and a scale behind become one scale per channel and one offset per token
and channel.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixer.arguments import check_real
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.affine import TokenOffset
from keras_mixer.layers.affine import authors_initializer
from keras_mixer.layers.composite import Composite
from keras_mixer.layers.folding import fold_norm
from keras_mixer.layers.folding import pop
from keras_mixer.layers.folding import pop_norm
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import token_shape
from keras_mixer.types import Activation
from keras_mixer.types import Config
from keras_mixer.types import Shape
from keras_mixer.types import Tensor


@keras.saving.register_keras_serializable(package="keras_mixer")
class TokenLinear(Composite):
    """The linear map that mixes the tokens of each channel, as in ResMLP.

    One dense layer is applied to every channel, along the tokens, as many out
    as in. The number of tokens is fixed once the layer is built. There is no
    activation and no residual sum: that is `ResMLPBlock`'s.

    The kernel is stored (in, out), for a product from the right: row `i` says
    what token `i` gives to each, where the matrix A of the paper, which
    multiplies from the left, is its transpose.

    Source: equation (2) of ResMLP (arXiv 2105.03404), the cross-patch
    sublayer.

    Args:
        use_bias: Boolean, whether each token has an offset.
        kernel_initializer: What `keras.initializers.get` takes; the authors'
            unless given.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Accepted as by `TokenMixing`, and without effect.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The input's.

    Raises:
        ValueError: If the number of tokens is unknown.

    Example:

    >>> from keras_mixer.layers import TokenLinear
    >>> layer = TokenLinear()
    >>> tuple(layer(keras.ops.ones((2, 6, 5))).shape)
    (2, 6, 5)
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(6, 6), (6,)]
    """

    is_random = False

    def __init__(
        self,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_bias = use_bias
        if kernel_initializer is None:
            kernel_initializer = authors_initializer()
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        batch, tokens, channels = token_shape(self, input_shape)
        self.dense = self._dense("dense", tokens, use_bias=self.use_bias)
        self.dense.build((batch, channels, tokens))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        y = ops.swapaxes(inputs, 1, 2)  # (batch, channels, tokens)
        return ops.swapaxes(self.dense(y), 1, 2)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="keras_mixer")
class ResMLPBlock(Block):
    """One block of ResMLP: a linear map over tokens, an MLP over channels.

    Each is a residual branch, `x + scale(mixing(norm(x)))`, with an `Affine`
    for the norm and a `LayerScale` for the scale.

    Source: equations (2) and (3) of ResMLP (arXiv 2105.03404);
    `resmlp_models.py` of facebookresearch/deit. The paper gives the initial
    scale by depth, as CaiT (arXiv 2103.17239).

    Args:
        channels_mlp_dim: Positive integer, the width of the channel-mixing MLP
            (four times the channels, in the paper).
        layer_scale_init: Number, the initial value of both scales.
        activation: What `keras.activations.get` takes; the exact GELU by
            default, with which the published ResMLPs were trained.
        dropout_rate: Float in [0, 1), the dropout after each dense layer of
            the channel-mixing MLP.
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
        ValueError: If the width is below 1, a rate outside [0, 1), or the
            number of tokens or channels unknown.
        TypeError: If the width is not an integer, or a rate or the initial
            scale not a number.

    Example:

    >>> from keras_mixer.layers import ResMLPBlock
    >>> block = ResMLPBlock(channels_mlp_dim=20, layer_scale_init=0.1)
    >>> tuple(block(keras.ops.ones((2, 6, 5))).shape)
    (2, 6, 5)
    """

    def __init__(
        self,
        channels_mlp_dim: int,
        layer_scale_init: float,
        activation: Activation = "gelu",
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
        check_real("layer_scale_init", layer_scale_init)
        self.layer_scale_init = float(layer_scale_init)
        scale = functools.partial(LayerScale, init_value=self.layer_scale_init)
        self.token_norm = self._part(Affine, "token_norm")
        self.token_mixing = self._composite(TokenLinear, "token_mixing")
        self.token_scale = self._part(scale, "token_scale")
        self.channel_norm = self._part(Affine, "channel_norm")
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            kernel_initializer=authors_initializer(),
        )
        self.channel_scale = self._part(scale, "channel_scale")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        y = self.token_mixing(self.token_norm(x), training=training)
        x = ops.add(x, self._drop(self.token_scale(y), training))
        y = self.channel_mixing(self.channel_norm(x), training=training)
        return ops.add(x, self._drop(self.channel_scale(y), training))

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "layer_scale_init": self.layer_scale_init}

    def fold(self, arrays):
        mlp = f"{self.name}/channel_mixing"
        fold_norm(arrays, f"{self.name}/channel_norm", f"{mlp}/dense_0")
        scale = pop(arrays, f"{self.name}/channel_scale/gamma")
        for name in ("kernel", "bias"):
            path = f"{mlp}/dense_1/{name}"
            arrays[path] = arrays[path] * scale

        before, offset = pop_norm(arrays, f"{self.name}/token_norm")
        after = pop(arrays, f"{self.name}/token_scale/gamma")
        bias = pop(arrays, f"{self.name}/token_mixing/dense/bias")
        kernel = arrays[f"{self.name}/token_mixing/dense/kernel"]
        received = kernel.sum(axis=0, dtype="float64")  # of ones in every token
        arrays[f"{self.name}/token_scale/gamma"] = before * after
        arrays[f"{self.name}/token_offset/offset"] = (
            np.outer(received, offset) + bias[:, None]
        ) * after
        return FusedResMLPBlock


@keras.saving.register_keras_serializable(package="keras_mixer")
class FusedResMLPBlock(Block):
    """A `ResMLPBlock` with one scale and one offset left, for inference.

    The offset of the tokens is added to the residual stream, not to the branch.
    The branch comes out of token mixing transposed, which in eager PyTorch is a
    matter of strides: adding what is laid out otherwise costs more there than
    the `Affine` that it replaces.

    Args:
        layer_scale_init: Ignored: the weights of the block are folded ones.
        **config: Other arguments of `ResMLPBlock`.
    """

    is_fused = True

    def __init__(self, layer_scale_init=None, **config):
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
