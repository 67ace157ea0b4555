"""The block of ResMLP, and its fused form for inference.

In the channel-mixing branch, `Affine` and `LayerScale` fold into the dense
layers next to them. In the token-mixing branch the linear layer acts along
another axis, so nothing folds into its matrix. There, the `Affine`, the bias
and the `LayerScale` become one scale per channel and one offset per token and
channel.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mixer.arguments import check_real
from keras_mixer.layers import direct
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.affine import TokenOffset
from keras_mixer.layers.affine import authors_initializer
from keras_mixer.layers.composite import Composite
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import fold_norm
from keras_mixer.layers.mixing import pop
from keras_mixer.layers.mixing import pop_norm
from keras_mixer.layers.mixing import token_shape
from keras_mixer.types import Activation
from keras_mixer.types import Config
from keras_mixer.types import Shape
from keras_mixer.types import Tensor


@keras.saving.register_keras_serializable(package="keras_mixer")
class TokenLinear(Composite):
    """The linear map that mixes the tokens of each channel, as in ResMLP.

    The same dense layer is applied to each channel, along the tokens. The
    output has as many tokens as the input. The number of tokens cannot change
    after the layer is built. There is no activation. The residual sum is not
    part of this layer, but of `ResMLPBlock`.

    The kernel has the shape (in, out). Row `i` contains the weights from token
    `i` to each output token. The matrix A of the paper is its transpose,
    because A multiplies from the left.

    Source: equation (2) of ResMLP (arXiv 2105.03404), the cross-patch
    sublayer.

    Args:
        use_bias: Boolean, whether to add a bias, with one value per token.
        kernel_initializer: Initializer of the kernel, as for
            `keras.initializers.get`. The default is the authors' initializer.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Ignored. Accepted for compatibility with `TokenMixing`.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The same as the input shape.

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
        if direct.are_dense(self, inputs, self.dense):
            return direct.dense_over_tokens(self.dense, inputs)
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

    Each is a residual branch, `x + scale(mixing(norm(x)))`, where `norm` is an
    `Affine` and `scale` is a `LayerScale`.

    Source: equations (2) and (3) of ResMLP (arXiv 2105.03404);
    `resmlp_models.py` of facebookresearch/deit. In the paper the initial scale
    depends on the depth of the model, as in CaiT (arXiv 2103.17239).

    Args:
        channels_mlp_dim: Positive integer, the width of the channel-mixing MLP
            (in the paper, four times the number of channels).
        layer_scale_init: Number, the initial value of both scales.
        activation: Activation function or its name, as for
            `keras.activations.get`. The default is the exact form of GELU, as
            in the published ResMLPs.
        dropout_rate: Float in [0, 1), the dropout rate after each dense layer
            of the channel-mixing MLP.
        stochastic_depth_rate: Float in [0, 1), the probability that a sample
            skips a branch while training.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.
        training: Boolean. If `True`, dropout and stochastic depth are active.

    Input shape:
        `(batch, tokens, channels)`, with a known number of tokens.

    Output shape:
        The same as the input shape.

    Raises:
        ValueError: If the width is below 1, a rate is outside [0, 1), or the
            number of tokens or channels is unknown.
        TypeError: If the width is not an integer, or if a rate or the initial
            scale is not a number.

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
        self.token_norm = self._sublayer(Affine, "token_norm")
        self.token_mixing = self._composite(TokenLinear, "token_mixing")
        self.token_scale = self._sublayer(scale, "token_scale")
        self.channel_norm = self._sublayer(Affine, "channel_norm")
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            kernel_initializer=authors_initializer(),
        )
        self.channel_scale = self._sublayer(scale, "channel_scale")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        y = direct.call(self, self.token_norm, x)
        y = direct.call(self, self.token_mixing, y, training=training)
        y = direct.call(self, self.token_scale, y)
        x = ops.add(x, self._drop(y, training))
        y = direct.call(self, self.channel_norm, x)
        y = direct.call(self, self.channel_mixing, y, training=training)
        y = direct.call(self, self.channel_scale, y)
        return ops.add(x, self._drop(y, training))

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
        # The output of the linear layer if each token is one.
        received = kernel.sum(axis=0, dtype="float64")
        arrays[f"{self.name}/token_scale/gamma"] = before * after
        arrays[f"{self.name}/token_offset/offset"] = (
            np.outer(received, offset) + bias[:, None]
        ) * after
        return FusedResMLPBlock


@keras.saving.register_keras_serializable(package="keras_mixer")
class FusedResMLPBlock(Block):
    """A `ResMLPBlock` with only one scale and one offset, for inference.

    The offset of the tokens is added to the residual stream, not to the branch.
    In eager PyTorch the output of token mixing is a transposed view. Adding a
    tensor with another memory layout to it costs more than the `Affine` that
    the offset replaces.

    Args:
        layer_scale_init: Ignored, because the weights are folded.
        **config: Other arguments of `ResMLPBlock`.
    """

    is_fused = True

    def __init__(self, layer_scale_init=None, **config):
        super().__init__(**config)
        self.token_offset = self._sublayer(TokenOffset, "token_offset")
        self.token_mixing = self._composite(
            TokenLinear, "token_mixing", use_bias=False
        )
        self.token_scale = self._sublayer(
            LayerScale, "token_scale", init_value=1.0
        )
        self.channel_mixing = self._composite(
            ChannelMixing,
            "channel_mixing",
            mlp_dim=self.channels_mlp_dim,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
        )

    def call(self, inputs, training=None):
        y = direct.call(self, self.token_mixing, inputs, training=training)
        y = direct.call(self, self.token_scale, y)
        x = direct.call(self, self.token_offset, inputs)
        x = ops.add(x, self._drop(y, training))
        y = direct.call(self, self.channel_mixing, x, training=training)
        return ops.add(x, self._drop(y, training))
