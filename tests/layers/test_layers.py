"""Layers of Mixer: comparison with the oracle, and use as Keras layers."""

import math

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.layers.activations import gelu_exact
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.output_activation import output_activation
from support import oracle
from support.helpers import randomise

pytestmark = pytest.mark.backends

TOKENS, CHANNELS, TOKENS_MLP, CHANNELS_MLP, BATCH = 6, 5, 7, 11, 3

# For each layer: a function that creates it, and its oracle.
LAYERS = {
    "token_mixing": (
        lambda **options: keras_mixer.TokenMixing(TOKENS_MLP, **options),
        oracle.token_mixing,
    ),
    "channel_mixing": (
        lambda **options: keras_mixer.ChannelMixing(CHANNELS_MLP, **options),
        oracle.channel_mixing,
    ),
    "block_0": (
        lambda **options: keras_mixer.MixerBlock(
            TOKENS_MLP, CHANNELS_MLP, **options
        ),
        oracle.block,
    ),
}


def model_of(name, **options):
    """Returns the layer `name` as a model, and its random weights."""
    make, _ = LAYERS[name]
    inputs = keras.Input((TOKENS, CHANNELS))
    model = keras.Model(inputs, make(name=name, **options)(inputs))
    return model, randomise(model)


def tokens():
    rng = np.random.default_rng(2)
    return rng.standard_normal((BATCH, TOKENS, CHANNELS)).astype("float32")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("activation", "gelu"),
    [(gelu_tanh, oracle.gelu_tanh), ("gelu", oracle.gelu_exact)],
)
def test_layer_equals_the_oracle(name, activation, gelu):
    model, weights = model_of(name, activation=activation)
    weights = {path: array.astype("float64") for path, array in weights.items()}
    expected = LAYERS[name][1](tokens().astype("float64"), weights, name, gelu)
    np.testing.assert_allclose(
        model.predict(tokens(), verbose=0), expected, rtol=0, atol=1e-5
    )


def test_exact_gelu_equals_the_definition():
    x = np.linspace(-8, 8, 4001).astype("float32")
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    for gelu in (gelu_exact, keras.activations.gelu):
        y = keras.ops.convert_to_numpy(gelu(keras.ops.convert_to_tensor(x)))
        np.testing.assert_allclose(y, exact, rtol=0, atol=1.1e-6)


def test_tanh_gelu_differs_from_exact_gelu():
    x = np.linspace(-4, 4, 101)
    exact = keras.ops.convert_to_numpy(keras.activations.gelu(x))
    tanh = keras.ops.convert_to_numpy(gelu_tanh(x))
    np.testing.assert_allclose(tanh, oracle.gelu_tanh(x), atol=1e-6)
    assert 4e-4 < np.abs(exact - tanh).max() < 5e-4


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_restored_from_its_configuration(name):
    make, _ = LAYERS[name]
    layer = make(activation="relu", dropout_rate=0.25, dtype="mixed_bfloat16")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.activation is keras.activations.relu
    assert again.dropout_rate == 0.25
    assert again(tokens()).dtype == layer(tokens()).dtype
    shapes = [tuple(weight.shape) for weight in layer.weights]
    assert [tuple(weight.shape) for weight in again.weights] == shapes


@pytest.mark.parametrize("name", LAYERS)
def test_unbuilt_layer_is_restored_from_its_configuration(name):
    layer = LAYERS[name][0](dtype="int8_from_float32")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.dtype_policy.name == "int8_from_float32"


def test_dtypes_of_inner_layers_are_restored_from_the_configuration():
    policies = keras.dtype_policies.DTypePolicyMap(
        keras.DTypePolicy("float32"),
        {
            "token_mixing/dense_0": keras.DTypePolicy("bfloat16"),
            "channel_mixing/.*": keras.DTypePolicy("float16"),
        },
    )
    block = keras_mixer.MixerBlock(TOKENS_MLP, CHANNELS_MLP, dtype=policies)
    for _ in range(2):
        block(tokens())
        assert block.token_mixing.dense_0.compute_dtype == "bfloat16"
        assert block.token_mixing.dense_1.compute_dtype == "float32"
        assert block.channel_mixing.dense_0.compute_dtype == "float16"
        assert block.channel_norm.compute_dtype == "float32"
        block = keras_mixer.MixerBlock.from_config(block.get_config())


@pytest.mark.parametrize("name", LAYERS)
def test_symbolic_shape_equals_eager_shape(name):
    make, _ = LAYERS[name]
    symbolic = make()(keras.Input((TOKENS, CHANNELS)))
    assert tuple(symbolic.shape) == (None, TOKENS, CHANNELS)
    assert tuple(make()(tokens()).shape) == (BATCH, TOKENS, CHANNELS)


def test_channel_mixing_processes_tokens_separately():
    model, _ = model_of("channel_mixing")
    changed = tokens()
    changed[:, 2] += 1
    difference = model.predict(changed, verbose=0) - model.predict(
        tokens(), verbose=0
    )
    assert set(np.flatnonzero(np.abs(difference).max((0, 2)))) == {2}


def test_token_mixing_processes_channels_separately():
    model, _ = model_of("token_mixing")
    changed = tokens()
    changed[:, :, 3] += 1
    difference = model.predict(changed, verbose=0) - model.predict(
        tokens(), verbose=0
    )
    assert set(np.flatnonzero(np.abs(difference).max((0, 1)))) == {3}


def test_initial_values_equal_the_official_code():
    layer = keras_mixer.ChannelMixing(300)
    layer.build((None, TOKENS, 200))
    kernel, bias = (weight.numpy() for weight in layer.weights[:2])
    # lecun_normal: variance 1 / fan_in, cut off at two standard deviations.
    assert kernel.std() == pytest.approx(200**-0.5, rel=0.02)
    # On PyTorch, Keras lets one number in 200,000 past the cut.
    assert (np.abs(kernel) > 2.3 * 200**-0.5).mean() < 1e-4
    assert not bias.any()


def test_dropout_is_only_active_in_training():
    layer = keras_mixer.TokenMixing(TOKENS_MLP, dropout_rate=0.5)
    still = keras.ops.convert_to_numpy(layer(tokens()))
    trained = keras.ops.convert_to_numpy(layer(tokens(), training=True))
    assert (still == keras.ops.convert_to_numpy(layer(tokens()))).all()
    assert 0.3 < (trained == 0).mean() < 0.7


def test_stochastic_depth_drops_samples_and_keeps_the_expectation():
    rate, batch = 0.3, 4000
    layer = keras_mixer.StochasticDepth(rate, seed=5)
    ones = np.ones((batch, 3, 2), "float32")
    y = keras.ops.convert_to_numpy(layer(ones, training=True))
    per_sample = y.reshape(batch, -1)
    assert (per_sample == per_sample[:, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    # Four standard deviations of the mean.
    assert y.mean() == pytest.approx(
        1, abs=4 * (rate / (1 - rate) / batch) ** 0.5
    )
    again = keras.ops.convert_to_numpy(layer(ones, training=True))
    assert (again != y).any()


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 3, 2, 5)])
def test_stochastic_depth_is_off_at_inference(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    layer = keras_mixer.StochasticDepth(0.9)
    assert (keras.ops.convert_to_numpy(layer(x)) == x).all()
    assert tuple(layer(x, training=True).shape) == shape


def test_branches_of_a_block_drop_samples_independently():
    block = keras_mixer.MixerBlock(
        TOKENS_MLP, CHANNELS_MLP, stochastic_depth_rate=0.5
    )
    x = np.repeat(tokens()[:1], 64, axis=0)
    y = keras.ops.convert_to_numpy(block(x, training=True)).reshape(64, -1)
    # Neither, one, the other, both.
    assert len(np.unique(y.round(4), axis=0)) == 4


def test_norms_compute_in_float32_under_mixed_precision():
    block = keras_mixer.MixerBlock(
        TOKENS_MLP, CHANNELS_MLP, dtype="mixed_bfloat16"
    )
    # bfloat16 cannot represent small differences between values near 300.
    x = (300 + tokens()).astype("float32")
    y = keras.ops.cast(block.token_norm(x), "float32")
    expected = oracle.layer_norm(x, {"n/gamma": 1.0, "n/beta": 0.0}, "n")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(y), expected, atol=2e-2
    )
    assert block.token_norm.gamma.dtype == "float32"


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([keras.layers.Dense(5)], "linear"),
        ([keras.layers.Dense(5, "softmax")], "softmax"),
        (
            [keras.layers.Dense(5), keras.layers.Activation("sigmoid")],
            "sigmoid",
        ),
        ([keras.layers.Dense(5), keras.layers.Softmax()], "softmax"),
        ([keras.layers.Dense(5), keras.layers.Softmax(axis=0)], None),
        ([keras.layers.Dense(5, "relu")], None),
        ([keras.layers.Dense(5), keras.layers.Rescaling(2.0)], None),
        ([keras.layers.Dense(5, kernel_constraint="non_neg")], None),
        ([keras.layers.Dense(5, lambda x: x)], None),
    ],
)
def test_the_last_layer_says_what_a_model_returns(last, expected):
    inner = keras.Sequential([keras.Input((4,)), *last])
    for model in (inner, keras.Sequential([keras.Input((4,)), inner])):
        assert output_activation(model) == expected
    assert (
        output_activation(keras.Model(inner.inputs, 2 * inner.outputs)) is None
    )
