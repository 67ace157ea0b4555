"""What happens inside a block of ResMLP.

ResMLP has no norm that looks at its input. A residual branch begins with a
scale and an offset for each channel (`Affine`) and ends with a scale
(`LayerScale`), which starts so small that every block begins near the identity;
the tokens are mixed by one matrix (`TokenLinear`), without a hidden layer or an
activation.

Sixteen bits. `Affine` and `LayerScale` take the place of norms and do as those
of Keras: under a mixed policy their weights stay float32, the arithmetic is
float32, and its result is rounded once. For that nothing is cast beforehand,
the product of both dtypes being float32. It is the scales that need it: deep
models start them at 1e-6, of which float16 keeps five bits, and the gradient of
a scale is a sum over every token of the batch.

No copy of the residual stream stands before `Affine`, as does before the norm
of `MixerBlock` on JAX: `Affine` reads its input once, and XLA compiles both to
the same cost.
"""

import functools

import keras
from keras import ops

from keras_mixer.arguments import check_real
from keras_mixer.layers.composite import Composite
from keras_mixer.layers.mixing import Block
from keras_mixer.layers.mixing import ChannelMixing
from keras_mixer.layers.mixing import token_shape


def authors_initializer():
    """A new initializer for a kernel of ResMLP, as its authors' code has it.

    The authors' truncated normal is cut off at -2 and 2, a hundred standard
    deviations, where Keras's is at two of them: so it is a normal one. Each
    kernel needs an initializer of its own, which used twice would draw the same
    numbers twice.

    Source: `resmlp_models.py` of facebookresearch/deit.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


class PerChannel(keras.Layer):
    """Base class for layers that act element-wise on the last axis."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # as Keras's norms: rounded once, at the end
        self.supports_masking = True  # a token is changed by itself

    def _add_weight(self, name, input_shape, initializer, *rows):
        """Adds a weight of shape `(*rows, channels)`."""
        if not input_shape or input_shape[-1] is None:
            raise ValueError(
                f"Layer '{self.name}' expects inputs of shape (batch, tokens, "
                "channels) with a known number of channels, since it has a "
                "weight for each. "
                f"Received: shape={tuple(input_shape)}"
            )
        return self.add_weight(
            name=name,
            shape=(*rows, input_shape[-1]),
            initializer=initializer,
            autocast=False,
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    # Keras's own takes only arguments that are plain values, and a layer inside
    # a block gets its dtype as a policy.
    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(package="keras_mixer")
class Affine(PerChannel):
    """Scales and shifts each channel: `alpha * x + beta`.

    It stands where other networks have a norm, but has no statistics: a token
    does not see the others, nor a channel the others. It starts as the
    identity. Under a mixed policy it computes in float32.

    Source: equation (1) of ResMLP (arXiv 2105.03404).

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.

    Input shape:
        `(batch, tokens, channels)`, or any shape that ends in `channels`.

    Output shape:
        The input's.

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

    def build(self, input_shape):
        self.alpha = self._add_weight("alpha", input_shape, "ones")
        self.beta = self._add_weight("beta", input_shape, "zeros")

    def call(self, inputs):
        y = ops.add(ops.multiply(inputs, self.alpha), self.beta)
        return ops.cast(y, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_mixer")
class LayerScale(PerChannel):
    """Scales each channel: `gamma * x`, with `gamma` small at the start.

    Placed at the end of a residual branch, it lets deep networks start near the
    identity. Under a mixed policy it computes in float32.

    Source: LayerScale of CaiT (arXiv 2103.17239). Equations (2) and (3) of
    ResMLP (arXiv 2105.03404) write an `Aff` here, with an offset too; the
    authors' code, `resmlp_models.py` of facebookresearch/deit, and thus the
    published weights have none.

    Args:
        init_value: Number, the initial value of every weight.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: Tensor of shape `(batch, tokens, channels)`.

    Input shape:
        `(batch, tokens, channels)`, or any shape that ends in `channels`.

    Output shape:
        The input's.

    Raises:
        ValueError: If the number of channels is unknown.
        TypeError: If `init_value` is not a number.

    Example:

    >>> from keras_mixer.layers import LayerScale
    >>> layer = LayerScale(0.5)
    >>> print(keras.ops.convert_to_numpy(layer(keras.ops.ones((1, 1, 3)))))
    [[[0.5 0.5 0.5]]]
    """

    def __init__(self, init_value, **kwargs):
        super().__init__(**kwargs)
        check_real("init_value", init_value)
        self.init_value = float(init_value)

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.init_value)
        self.gamma = self._add_weight("gamma", input_shape, initializer)

    def call(self, inputs):
        return ops.cast(ops.multiply(inputs, self.gamma), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "init_value": self.init_value}


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

    def __init__(self, use_bias=True, kernel_initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        if kernel_initializer is None:
            kernel_initializer = authors_initializer()
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        batch, tokens, channels = token_shape(self, input_shape)
        self.dense = self._dense("dense", tokens, use_bias=self.use_bias)
        self.dense.build((batch, channels, tokens))

    def call(self, inputs, training=None):
        y = ops.swapaxes(inputs, 1, 2)  # (batch, channels, tokens)
        return ops.swapaxes(self.dense(y), 1, 2)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
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
        channels_mlp_dim,
        layer_scale_init,
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

    def call(self, inputs, training=None):
        x = inputs
        y = self.token_mixing(self.token_norm(x), training=training)
        x = ops.add(x, self._drop(self.token_scale(y), training))
        y = self.channel_mixing(self.channel_norm(x), training=training)
        return ops.add(x, self._drop(self.channel_scale(y), training))

    def get_config(self):
        config = super().get_config()
        return {**config, "layer_scale_init": self.layer_scale_init}
