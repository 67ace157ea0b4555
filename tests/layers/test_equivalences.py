"""Mixer and ResMLP as convolutional networks, as docs/equivalences.md says.

Everything that is compared with our layers is made of Keras's own layers:
convolutions, depth-wise convolutions and `Dense`.
"""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_mixer
from support.helpers import randomise

# Every axis has another size.
PATCH, IMAGE_CHANNELS, CLASSES, BATCH = 2, 4, 8, 13
ROWS, COLUMNS = 3, 5
TOKENS, CHANNELS, TOKENS_MLP, CHANNELS_MLP = ROWS * COLUMNS, 9, 7, 11
IMAGE = (PATCH * ROWS, PATCH * COLUMNS, IMAGE_CHANNELS)


gelu_tanh = functools.partial(keras.activations.gelu, approximate=True)


def random(*shape, seed=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype("float32")


def built(layer, *shape):
    """Returns a built layer with random weights."""
    x = keras.Input(shape)
    randomise(keras.Model(x, layer(x)))
    return layer


def assert_same(received, expected):
    received, expected = map(ops.convert_to_numpy, (received, expected))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


def called(layer, x, *weights):
    """Calls a layer of Keras with the given weights."""
    layer.build(x.shape)
    layer.set_weights([np.asarray(weight) for weight in weights])
    return layer(x)


def to_grid(x):
    return ops.reshape(x, (-1, ROWS, COLUMNS, x.shape[-1]))


def to_tokens(x):
    return ops.reshape(x, (-1, TOKENS, x.shape[-1]))


# One function for each kind of layer. The inputs are (batch, ROWS, COLUMNS,
# channels), and each function creates convolutions of Keras alone.


def pointwise(x, dense):
    """A `Dense` layer over the channels as a 1 x 1 convolution."""
    kernel, bias = (weight.numpy() for weight in dense.weights)
    return called(
        layers.Conv2D(kernel.shape[1], 1), x, kernel[None, None], bias
    )


def over_tokens(x, kernel, bias):
    """A linear map over all positions as a depth-wise convolution.

    Args:
        x: Tensor of shape `(batch, rows, columns, channels)`.
        kernel: Array of shape `(rows * columns, units)`.
        bias: Array of shape `(units,)`.

    Returns:
        A tensor of shape `(batch, channels, units)`.
    """
    size, channels, units = x.shape[1:3], x.shape[3], kernel.shape[1]
    shared = np.repeat(kernel.reshape(*size, 1, units), channels, axis=2)
    y = called(
        layers.DepthwiseConv2D(size, depth_multiplier=units, padding="valid"),
        x,
        shared,
        np.tile(bias, channels),
    )
    assert tuple(y.shape[1:]) == (1, 1, channels * units)
    return ops.reshape(y, (-1, channels, units))


def token_mixing(x, mixing, activation=gelu_tanh):
    hidden = over_tokens(x, *mixing.dense_0.get_weights())
    # The hidden units are the positions of a grid of 1 x D_S.
    hidden = ops.transpose(activation(hidden), (0, 2, 1))[:, None]
    y = over_tokens(hidden, *mixing.dense_1.get_weights())
    return to_grid(ops.transpose(y, (0, 2, 1)))


def token_linear(x, mixing):
    y = over_tokens(x, *mixing.dense.get_weights())
    return to_grid(ops.transpose(y, (0, 2, 1)))


def channel_mixing(x, mixing, activation=gelu_tanh):
    return pointwise(activation(pointwise(x, mixing.dense_0)), mixing.dense_1)


def scaled(x, scale, offset=0.0):
    """A scale and an offset per channel as a depth-wise 1 x 1 convolution."""
    offset = np.broadcast_to(offset, scale.shape)
    kernel = scale.numpy()[None, None, :, None]
    return called(layers.DepthwiseConv2D(1), x, kernel, offset)


def test_stem_is_a_linear_layer_of_each_patch():
    model = keras_mixer.Mixer(
        PATCH, 1, CHANNELS, TOKENS_MLP, CHANNELS_MLP, input_shape=IMAGE
    )
    randomise(model)
    stem = model.get_layer("stem")
    images = random(BATCH, *IMAGE)
    # (batch, row, y, column, x, channel) -> (batch, token, values of a patch)
    patches = images.reshape(
        BATCH, ROWS, PATCH, COLUMNS, PATCH, IMAGE_CHANNELS
    ).swapaxes(2, 3)
    patches = ops.convert_to_tensor(patches.reshape(BATCH, TOKENS, -1))
    kernel, bias = stem.get_weights()
    dense = layers.Dense(CHANNELS)
    tokens = called(dense, patches, kernel.reshape(-1, CHANNELS), bias)
    assert stem.kernel_size == stem.strides == (PATCH, PATCH)
    assert stem.padding == "valid"
    assert_same(to_tokens(stem(ops.convert_to_tensor(images))), tokens)


def test_channel_mixing_is_two_pointwise_convolutions():
    mixing = built(keras_mixer.ChannelMixing(CHANNELS_MLP), TOKENS, CHANNELS)
    x = ops.convert_to_tensor(random(BATCH, TOKENS, CHANNELS))
    assert_same(to_tokens(channel_mixing(to_grid(x), mixing)), mixing(x))


def test_token_mixing_is_two_depthwise_convolutions():
    mixing = built(keras_mixer.TokenMixing(TOKENS_MLP), TOKENS, CHANNELS)
    x = ops.convert_to_tensor(random(BATCH, TOKENS, CHANNELS))
    assert_same(to_tokens(token_mixing(to_grid(x), mixing)), mixing(x))


def test_token_linear_is_one_depthwise_convolution():
    linear = built(keras_mixer.layers.TokenLinear(), TOKENS, CHANNELS)
    x = ops.convert_to_tensor(random(BATCH, TOKENS, CHANNELS))
    assert_same(to_tokens(token_linear(to_grid(x), linear)), linear(x))


def test_shared_kernel_is_a_convolution_of_each_channel_as_a_gray_image():
    """The same with as many weights as token mixing has."""
    mixing = built(keras_mixer.TokenMixing(TOKENS_MLP), TOKENS, CHANNELS)
    x = random(BATCH, ROWS, COLUMNS, CHANNELS)
    gray = x.transpose(0, 3, 1, 2).reshape(-1, ROWS, COLUMNS, 1)
    kernel, bias = mixing.dense_0.get_weights()
    conv = layers.Conv2D(TOKENS_MLP, (ROWS, COLUMNS), padding="valid")
    y = called(
        conv,
        ops.convert_to_tensor(gray),
        kernel.reshape(ROWS, COLUMNS, 1, TOKENS_MLP),
        bias,
    )
    assert conv.count_params() == mixing.dense_0.count_params()
    expected = mixing.dense_0(
        ops.convert_to_tensor(x.reshape(BATCH, TOKENS, CHANNELS).swapaxes(1, 2))
    )
    assert_same(ops.reshape(y, (BATCH, CHANNELS, TOKENS_MLP)), expected)


def test_sliding_convolution_is_a_token_linear_layer_with_few_free_weights():
    """The converse: a shared kernel that slides over the whole grid."""
    size = (2 * ROWS - 1, 2 * COLUMNS - 1)
    kernel, bias = random(*size), random(CHANNELS, seed=4)
    x = ops.convert_to_tensor(random(BATCH, ROWS, COLUMNS, CHANNELS, seed=5))
    shared = np.repeat(kernel[..., None, None], CHANNELS, axis=2)
    expected = called(
        layers.DepthwiseConv2D(size, padding="same"), x, shared, bias * 0
    )
    row, column = np.divmod(np.arange(TOKENS), COLUMNS)
    matrix = kernel[
        row[:, None] - row + ROWS - 1, column[:, None] - column + COLUMNS - 1
    ]
    linear = keras_mixer.layers.TokenLinear(use_bias=False)
    received = called(linear, to_tokens(x), matrix)
    assert_same(received, to_tokens(expected))
    assert kernel.size < matrix.size


def convolutional(model, block, norm, image):
    """Computes a model with Keras's convolutions, from its weights."""
    stem = model.get_layer("stem")
    conv = layers.Conv2D(CHANNELS, PATCH, strides=PATCH, padding="valid")
    x = called(conv, image, *stem.get_weights())
    for i in range(2):
        x = block(x, model.get_layer(f"block_{i}"))
    x = norm(x, model.get_layer("norm"))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return pointwise(x, model.get_layer("predictions"))[:, 0, 0]


def layer_norm(x, norm):
    own = layers.LayerNormalization(epsilon=1e-6)
    return called(own, x, *norm.get_weights())


def mixer_block(x, block):
    y = layer_norm(x, block.token_norm)
    x = x + token_mixing(y, block.token_mixing)
    y = layer_norm(x, block.channel_norm)
    return x + channel_mixing(y, block.channel_mixing)


def affine(x, layer):
    return scaled(x, layer.alpha, layer.beta.numpy())


def resmlp_block(x, block):
    y = token_linear(affine(x, block.token_norm), block.token_mixing)
    x = x + scaled(y, block.token_scale.gamma)
    y = affine(x, block.channel_norm)
    y = channel_mixing(y, block.channel_mixing, keras.activations.gelu)
    return x + scaled(y, block.channel_scale.gamma)


def whole_model(family):
    options = {
        "input_shape": IMAGE,
        "classes": CLASSES,
        "classifier_activation": None,
        "include_preprocessing": False,
    }
    if family == "mixer":
        return keras_mixer.Mixer(
            PATCH, 2, CHANNELS, TOKENS_MLP, CHANNELS_MLP, **options
        )
    return keras_mixer.ResMLP(PATCH, 2, CHANNELS, CHANNELS_MLP, 0.1, **options)


@pytest.mark.parametrize(
    ("family", "block", "norm"),
    [
        ("mixer", mixer_block, layer_norm),
        ("resmlp", resmlp_block, affine),
    ],
)
def test_whole_model_is_a_convolutional_network(family, block, norm):
    model = whole_model(family)
    randomise(model)
    images = ops.convert_to_tensor(random(BATCH, *IMAGE))
    expected = model(images, training=False)
    assert_same(convolutional(model, block, norm, images), expected)
