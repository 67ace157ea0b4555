"""Multiply-adds, compared with counts by hand and with PyTorch's counter."""

import keras
import numpy as np
import pytest
from keras import layers

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


def test_layers_of_the_package_are_counted_in_other_models():
    """With a grouped convolution, and a layer that is called twice."""
    image = keras.Input((8, 12, 4))
    x = layers.Conv2D(10, (4, 2), 4, groups=2, name="patches")(image)
    x = layers.Reshape((6, 10))(x / 2)
    dense = layers.Dense(10, name="shared")
    x = keras_mixer.TokenMixing(7, name="mixing")(dense(dense(x)))
    x = keras_mixer.ResMLPBlock(11, 0.1, name="block")(x)
    model = keras.Model(image, x)
    assert macs(model) == {
        "patches": 4 * 2 * 2 * 10 * 6,
        "shared": 2 * 6 * 10 * 10,
        "mixing": 2 * 6 * 7 * 10,
        "block/token_mixing": 6 * 6 * 10,
        "block/channel_mixing": 2 * 6 * 10 * 11,
    }
    if keras.backend.backend() == "torch":
        assert total(model) == counted_by_pytorch(model)


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


class Own(keras.Layer):
    """A layer of the user, without weights."""

    def call(self, inputs):
        return keras.ops.matmul(inputs, inputs)


@pytest.mark.parametrize(
    ("added", "kind"),
    [
        (layers.LSTM(4), "LSTM"),
        (layers.EinsumDense("...d,de->...e", 7), "EinsumDense"),
        (Own(), "Own"),
        (layers.Lambda(lambda x: x), "Lambda"),
        (lambda x: keras.ops.matmul(x, x), "Matmul"),
    ],
)
def test_layers_without_a_formula_are_refused(added, kind):
    tokens = keras.Input((6, 6))
    x = keras_mixer.TokenMixing(7)(tokens)
    with pytest.raises(ValueError, match=rf"'m' with '\w+' \(of type {kind}\)"):
        macs(keras.Model(tokens, added(x), name="m"))


def test_models_without_a_layer_of_the_package_are_refused():
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(4)], name="m")
    with pytest.raises(ValueError, match="'m' with no layer of this package"):
        macs(plain)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.mixing = keras_mixer.ChannelMixing(7)


def test_models_of_unknown_size_are_refused():
    mixing = keras_mixer.ChannelMixing(7)
    unknown = [keras.Input((None, 3)), mixing]
    for model in (Subclassed(), *map(keras.Sequential, ([mixing], unknown))):
        with pytest.raises(ValueError, match="have a known size"):
            macs(model)
