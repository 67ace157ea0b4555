"""Multiply-adds, compared with counts by hand and with PyTorch's counter."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_mixer
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import family_model

macs = keras_mixer.macs


def total(model):
    return sum(macs(model).values())


def counted_by_pytorch(model, batch=3):
    """FLOPs of the running model, divided by two and by the batch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    rng = np.random.default_rng(0)
    images = [
        rng.uniform(0, 255, (batch, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images[0] if len(images) == 1 else images)
    count, rest = divmod(counter.get_total_flops(), 2 * batch)
    assert rest == 0
    return count


def by_hand(family, grid, hidden_tokens, classes=5):
    """`{layer: multiply-adds}` of `family_model` for 4 x 4 patches."""
    tokens, width = grid[0] * grid[1], SIZES["hidden_dim"]
    mixing = 2 * tokens * hidden_tokens * width
    if family == "resmlp":
        mixing = tokens * tokens * width
    counts = {"stem": 4 * 4 * 3 * width * tokens}
    for i in range(2):
        counts[f"block_{i}/token_mixing"] = mixing
        counts[f"block_{i}/channel_mixing"] = 2 * width * 11 * tokens
    return {**counts, "predictions": width * classes}


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_all_kinds_are_counted(family):
    model = family_model(family)
    expected = by_hand(family, (2, 3), 7)
    received = macs(model)
    assert received == expected
    assert list(received) == list(expected)
    assert macs(keras_mixer.fuse(model)) == expected

    wide = keras_mixer.resize(model, (16, 24, 3))  # four tiles
    assert macs(wide) == by_hand(family, (4, 6), 28)
    other = keras_mixer.resize(model, (12, 20, 3), method="interpolate")
    assert macs(other) == by_hand(family, (3, 5), 7)

    dense = model.get_layer("block_0").channel_mixing.dense_0
    dense.enable_lora(3)
    assert macs(model) == expected
    model.quantize("int8")
    assert macs(model) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_nested_models_and_own_heads_are_counted(family):
    backbone = family_model(family, include_top=False, pooling="avg")
    inner = by_hand(family, (2, 3), 7)
    del inner["predictions"]
    nested = {f"{backbone.name}/{path}": inner[path] for path in inner}
    augmented = keras.Sequential(
        [
            keras.Input(IMAGE),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            backbone,
            layers.Dense(9, name="head"),
        ]
    )
    assert macs(augmented) == {**nested, "head": 90}
    head = layers.Dense(9, name="head")
    own = keras.Model(backbone.input, head(backbone.output))
    assert macs(own) == {**inner, "head": 90}
    video = keras.Sequential(
        [
            keras.Input((4, *IMAGE)),
            layers.TimeDistributed(backbone, name="frames"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(9, name="head"),
        ]
    )
    assert macs(video) == {"frames": 4 * sum(inner.values()), "head": 90}


def test_counting_does_not_change_the_model(tiny):
    model = tiny()
    nested = keras.Sequential([keras.Input(IMAGE), model, layers.Dense(2)])
    einsum = layers.EinsumDense("abc,cd->abd", (None, 9))
    tokens = keras.Model(
        model.input, einsum(model.get_layer("norm").output), name="tokens"
    )
    assert macs(tokens)[einsum.name] == 6 * 10 * 9
    for counted in (nested, model):
        macs(counted)
    assert len(model.get_layer("stem")._inbound_nodes) == 1
    assert model.get_layer("block_0").output.shape == (None, 6, 10)
    assert nested.layers[0].output.shape == (None, 5)
    assert "compute_output_shape" not in vars(einsum)
    assert keras.models.clone_model(model).count_params()


def test_shared_layers_are_counted_once_for_each_call():
    inputs = keras.Input((6, 8))
    dense = layers.Dense(8, name="shared")
    model = keras.Model(inputs, dense(dense(inputs)))
    assert macs(model) == {"shared": 2 * 6 * 8 * 8}


class OwnBlock(keras.Layer):
    """Mixes channels, and moves the halves of the image into the batch."""

    def build(self, shape):
        self.mixing = keras_mixer.ChannelMixing(11)
        self.mixing.build(shape)
        self.kernel = self.add_weight(shape=(3, 3))

    def call(self, inputs):
        x = inputs + self.mixing(inputs)
        halves = ops.reshape(x, (-1, 3, 10))
        mixed = ops.matmul(self.kernel, halves)
        return ops.einsum("...tc,...sc->...ts", mixed, halves)


def test_layers_of_the_user_are_counted():
    model = keras.Sequential([keras.Input((6, 10)), OwnBlock(name="own")])
    mixing, products = 2 * 6 * 10 * 11, 2 * (2 * 3 * 3 * 10)
    assert macs(model) == {"own": mixing + products}


def sequential(*added, shape=IMAGE):
    return keras.Sequential([keras.Input(shape), *added])


def attention(layer):
    inputs = [keras.Input((6, 8)), keras.Input((5, 8))]
    return keras.Model(inputs, layer(*inputs))


KERAS_MODELS = {
    "dense": lambda: sequential(layers.Dense(7), layers.Activation("gelu")),
    "conv": lambda: sequential(layers.Conv2D(4, 3, strides=2), layers.PReLU()),
    "groups": lambda: sequential(
        layers.Conv2D(6, 3, padding="same", groups=3, dilation_rate=2)
    ),
    "conv1d": lambda: sequential(
        layers.Reshape((8, 36)), layers.Conv1D(5, 3, padding="causal")
    ),
    "depthwise": lambda: sequential(
        layers.DepthwiseConv2D((2, 3), depth_multiplier=2)
    ),
    "separable": lambda: sequential(
        layers.SeparableConv2D(4, (2, 3), depth_multiplier=2)
    ),
    "einsum": lambda: sequential(
        layers.EinsumDense("abcd,de->abce", (None, None, 7)), layers.Dense(5)
    ),
    "ellipsis": lambda: sequential(
        layers.EinsumDense("...d,de->...e", (8, 12, 7))
    ),
    "pooling": lambda: sequential(
        layers.Rescaling(1 / 255),
        layers.MaxPooling2D(2),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dropout(0.1),
        layers.Dense(9, activation="softmax"),
    ),
    "time": lambda: sequential(layers.TimeDistributed(layers.Conv1D(4, 3))),
}


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="counts on PyTorch"
)
@pytest.mark.parametrize("name", KERAS_MODELS)
def test_keras_layers_equal_the_count_of_pytorch(name):
    model = KERAS_MODELS[name]()
    assert total(model) == counted_by_pytorch(model) > 0


@pytest.mark.parametrize("name", KERAS_MODELS)
def test_all_backends_count_keras_layers(name):
    assert total(KERAS_MODELS[name]()) > 0


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="counts on PyTorch"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_models_equal_the_count_of_pytorch(family):
    model = family_model(family, input_shape=(12, 20, 1))
    larger = keras_mixer.resize(model, (24, 20, 1), method="interleave")
    fused = keras_mixer.fuse(larger)
    for each in (model, larger, fused):
        assert total(each) == counted_by_pytorch(each)


@pytest.mark.parametrize("kind", ["attention", "transposed convolution"])
def test_attention_and_transposed_convolutions_are_counted(kind):
    """By hand: PyTorch counts neither on a CPU, or other products."""
    if kind == "attention":
        model = attention(layers.MultiHeadAttention(2, 4))
        expected = (2 * 6 + 2 * 5) * 8 * 8 + 2 * 6 * 5 * 8
    else:
        model = sequential(layers.Conv2DTranspose(5, (2, 3)))
        expected = 8 * 12 * 3 * 5 * 2 * 3
    assert total(model) == expected


class Custom(keras.Layer):
    """A layer that does not use `keras.ops`."""

    def call(self, inputs):
        return np.matmul(inputs, np.ones((3, 3)))

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    ("added", "name"),
    [
        (layers.LSTM(4), "'lstm' (of type LSTM)"),
        (layers.Bidirectional(layers.GRU(4)), "'forward_gru' (of type GRU)"),
        (
            layers.Lambda(lambda x: ops.tensordot(x, ops.ones((3, 3)), 1)),
            "(of type Tensordot)",
        ),
        (
            layers.Lambda(lambda x: ops.svd(x, compute_uv=False)),
            "(of type SVD)",
        ),
        (
            layers.Lambda(lambda x: ops.einsum("bij,bjk,bkl->bil", x, x, x)),
            "(of type Einsum)",
        ),
        (Custom(name="custom"), "'custom' (of type Custom)"),
    ],
)
def test_layers_that_cannot_be_counted_raise_errors(added, name):
    model = sequential(layers.Identity(), added, shape=(3, 3))
    with pytest.raises(ValueError, match=re.escape(name)):
        macs(model)
    assert model.layers[0].output.shape == (None, 3, 3)  # as before


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_models_of_unknown_size_raise_errors():
    with pytest.raises(TypeError, match="must be a Keras model"):
        macs(layers.Dense(3))
    for model in (
        Subclassed(),
        keras.Sequential([layers.Dense(3)]),
        sequential(layers.Dense(3), shape=(None, 3)),
    ):
        with pytest.raises(ValueError, match="have a known size"):
            macs(model)
