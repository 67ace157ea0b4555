"""The layers of both families: comparison with the oracle, use in Keras."""

import math

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.layers.activations import gelu_exact
from keras_mixer.layers.activations import gelu_tanh
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear
from support import oracle
from support.helpers import call
from support.helpers import randomise

TOKENS, CHANNELS, TOKENS_MLP, CHANNELS_MLP, BATCH = 6, 5, 7, 11, 3

# For each layer: a function that creates it, and its oracle.
MLPS = {
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
LAYERS = {
    **MLPS,
    "norm": (lambda **options: Affine(**options), oracle.affine),
    "scale": (
        lambda **options: LayerScale(0.1, **options),
        oracle.layer_scale,
    ),
    "mixing": (
        lambda **options: TokenLinear(**options),
        oracle.token_linear,
    ),
    "resmlp_block": (
        lambda **options: ResMLPBlock(CHANNELS_MLP, 0.1, **options),
        oracle.resmlp_block,
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


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))


def assert_layer_equals_the_oracle(name, *functions, **options):
    model, weights = model_of(name, **options)
    weights = {path: array.astype("float64") for path, array in weights.items()}
    _, network = LAYERS[name]
    expected = network(tokens().astype("float64"), weights, name, *functions)
    received = call(model, tokens())
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_the_oracle(name):
    assert_layer_equals_the_oracle(name)


@pytest.mark.backends
@pytest.mark.parametrize("name", MLPS)
def test_layer_with_exact_gelu_equals_the_oracle(name):
    assert_layer_equals_the_oracle(name, oracle.gelu_exact, activation="gelu")


@pytest.mark.backends
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
    layer = LAYERS[name][0](dtype="mixed_bfloat16", name=name)
    again = type(layer).from_config(layer.get_config())
    for _ in range(2):
        assert again.get_config() == layer.get_config()
        assert again(tokens()).dtype == layer(tokens()).dtype
        shapes = [tuple(weight.shape) for weight in layer.weights]
        assert [tuple(weight.shape) for weight in again.weights] == shapes
        again = type(layer).from_config(layer.get_config())  # of a built one


def test_all_options_of_a_block_are_restored_from_its_configuration():
    block = ResMLPBlock(CHANNELS_MLP, 1e-6, "relu", 0.25, 0.125)
    config = keras.saving.serialize_keras_object(block)
    again = keras.saving.deserialize_keras_object(config)
    assert config["registered_name"] == "keras_mixer>ResMLPBlock"
    assert again.get_config() == block.get_config()
    assert again.channels_mlp_dim == CHANNELS_MLP
    assert again.channel_mixing.activation is keras.activations.relu
    assert again.channel_mixing.dropout_rate == 0.25
    assert again.stochastic_depth.rate == 0.125
    assert again.token_scale.init_value == 1e-6
    assert again.channel_scale.init_value == 1e-6


@pytest.mark.parametrize("name", MLPS)
def test_unbuilt_layer_is_restored_from_its_configuration(name):
    layer = LAYERS[name][0](dtype="int8_from_float32")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.dtype_policy.name == "int8_from_float32"


def test_dtypes_of_inner_layers_are_restored_from_the_configuration():
    policies = keras.dtype_policies.DTypePolicyMap(
        keras.DTypePolicy("float32"),
        {
            "token_mixing/dense": keras.DTypePolicy("bfloat16"),
            "channel_mixing/.*": keras.DTypePolicy("float16"),
            "channel_scale": keras.DTypePolicy("mixed_bfloat16"),
        },
    )
    block = ResMLPBlock(CHANNELS_MLP, 0.1, dtype=policies)
    for _ in range(2):
        block(tokens())
        assert block.token_mixing.dense.compute_dtype == "bfloat16"
        assert block.channel_mixing.dense_1.compute_dtype == "float16"
        assert block.token_scale.compute_dtype == "float32"
        assert block.channel_scale.compute_dtype == "bfloat16"
        block = ResMLPBlock.from_config(block.get_config())


@pytest.mark.backends
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float16"])
def test_symbolic_shape_and_dtype_equal_the_eager_ones(name, dtype):
    make, _ = LAYERS[name]
    symbolic = make(dtype=dtype)(keras.Input((TOKENS, CHANNELS)))
    eager = make(dtype=dtype)(tokens())
    assert tuple(symbolic.shape) == (None, TOKENS, CHANNELS)
    assert tuple(eager.shape) == (BATCH, TOKENS, CHANNELS)
    assert symbolic.dtype == keras.backend.standardize_dtype(eager.dtype)


@pytest.mark.parametrize("name", ["token_mixing", "channel_mixing", "mixing"])
def test_mixing_processes_the_other_axis_separately(name):
    model, _ = model_of(name)
    changed = tokens()
    axis = 1 if name == "channel_mixing" else 2
    changed.swapaxes(0, axis)[3] += 1
    difference = np.abs(call(model, changed) - call(model, tokens()))
    differs = difference.max(axis=(0, 3 - axis))
    assert set(np.flatnonzero(differs)) == {3}


def test_initial_values_of_mixer_equal_the_official_code():
    layer = keras_mixer.ChannelMixing(300)
    layer.build((None, TOKENS, 200))
    kernel, bias = (weight.numpy() for weight in layer.weights[:2])
    # lecun_normal: variance 1 / fan_in, cut off at two standard deviations.
    assert kernel.std() == pytest.approx(200**-0.5, rel=0.02)
    # On PyTorch, Keras lets one number in 200,000 past the cut.
    assert (np.abs(kernel) > 2.3 * 200**-0.5).mean() < 1e-4
    assert not bias.any()


def test_initial_values_of_resmlp_equal_the_official_code():
    block = ResMLPBlock(300, layer_scale_init=1e-5)
    block.build((None, 250, 200))
    kernels = [
        block.token_mixing.dense.kernel.numpy(),
        block.channel_mixing.dense_0.kernel.numpy(),
        block.channel_mixing.dense_1.kernel.numpy(),
    ]
    for kernel in kernels:
        assert kernel.std() == pytest.approx(0.02, rel=0.02)
        assert np.abs(kernel).max() > 0.05  # not cut off at 0.04
    for layer in (
        block.token_mixing.dense,
        block.channel_mixing.dense_0,
        block.channel_mixing.dense_1,
    ):
        assert not layer.bias.numpy().any()
    for affine in (block.token_norm, block.channel_norm):
        assert (affine.alpha.numpy() == 1).all()
        assert not affine.beta.numpy().any()
    for scale in (block.token_scale, block.channel_scale):
        assert (scale.gamma.numpy() == np.float32(1e-5)).all()


def test_all_kernels_have_different_initial_values():
    starts = []
    for _ in range(2):
        block = ResMLPBlock(CHANNELS, layer_scale_init=0.1)
        block.build((None, CHANNELS, CHANNELS))  # three kernels of one shape
        starts += [w.numpy() for w in block.weights if w.name == "kernel"]
    assert len(np.unique(np.stack(starts).reshape(6, -1), axis=0)) == 6


def test_mlps_use_a_given_initializer():
    layer = keras_mixer.ChannelMixing(
        CHANNELS, kernel_initializer=keras.initializers.RandomNormal(3.0, 0.1)
    )
    again = keras_mixer.ChannelMixing.from_config(layer.get_config())
    for mixing in (layer, again):
        mixing.build((None, TOKENS, CHANNELS))
        first, second = mixing.dense_0.kernel, mixing.dense_1.kernel
        assert first.numpy().mean() == pytest.approx(3, abs=0.1)
        assert (first.numpy() != second.numpy()).all()
    assert again.get_config() == layer.get_config()


@pytest.mark.backends
def test_dropout_is_only_active_in_training():
    layer = keras_mixer.TokenMixing(TOKENS_MLP, dropout_rate=0.5)
    still = keras.ops.convert_to_numpy(layer(tokens()))
    trained = keras.ops.convert_to_numpy(layer(tokens(), training=True))
    assert (still == keras.ops.convert_to_numpy(layer(tokens()))).all()
    assert 0.3 < (trained == 0).mean() < 0.7


def test_only_the_channels_of_resmlp_have_dropout():
    block = ResMLPBlock(CHANNELS_MLP, 1.0, dropout_rate=0.5)
    block.build((None, TOKENS, CHANNELS))
    block.channel_mixing.dense_1.bias.assign(np.ones(CHANNELS))
    still = to_numpy(block(tokens()))
    assert (still == to_numpy(block(tokens()))).all()
    after_tokens = tokens() + to_numpy(
        block.token_mixing(block.token_norm(tokens()))
    )
    branch = to_numpy(block(tokens(), training=True)) - after_tokens
    assert 0.3 < (np.abs(branch) < 1e-6).mean() < 0.7
    assert (np.abs(still - after_tokens) > 1e-6).all()


@pytest.mark.backends
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


@pytest.mark.parametrize("name", ["block_0", "resmlp_block"])
def test_branches_of_a_block_drop_samples_independently(name):
    block = LAYERS[name][0](stochastic_depth_rate=0.5)
    x = np.repeat(tokens()[:1], 64, axis=0)
    still = to_numpy(block(x)).reshape(64, -1)
    assert np.ptp(still, axis=0).max() < 1e-5
    y = to_numpy(block(x, training=True)).reshape(64, -1)
    # Neither, one, the other, both.
    assert len(np.unique(y.round(4), axis=0)) == 4
    assert (np.abs(y - x.reshape(64, -1)).max(1) == 0).any()


@pytest.mark.backends
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


@pytest.mark.backends
def test_affine_computes_in_float32_under_mixed_precision():
    layer = Affine(dtype="mixed_bfloat16")
    layer.build((None, TOKENS, CHANNELS))
    layer.beta.assign(np.full(CHANNELS, -300.0))
    # At 300, neighbors in bfloat16 are 2 apart.
    y = layer(300 + tokens())
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_allclose(to_numpy(y), tokens(), atol=2e-2)
    assert layer.alpha.dtype == "float32"


@pytest.mark.backends
def test_scale_too_small_for_float16_has_an_effect():
    layer = LayerScale(1e-8, dtype="mixed_float16")
    x = keras.ops.cast(1e4 * tokens(), "float16")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(to_numpy(y), 1e-4 * tokens(), atol=1e-6)


@pytest.mark.backends
def test_bfloat16_is_close_to_float32():
    model, weights = model_of("resmlp_block")
    half, same = model_of("resmlp_block", dtype="mixed_bfloat16")
    np.testing.assert_equal(same, weights)
    assert half.output.dtype == "bfloat16"
    expected = call(model, tokens())
    received = to_numpy(half(tokens()))
    assert (received != expected).any()
    np.testing.assert_allclose(received, expected, atol=0.03, rtol=0.02)
