"""Layers of ResMLP: comparison with the oracle and timm, use in Keras."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.layers.affine import Affine
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.weights import loading
from support import oracle
from support import peers
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import computations_of_gelu
from support.helpers import fit_tiny
from support.helpers import matches
from support.helpers import randomise

pytestmark = pytest.mark.backends

TOKENS, CHANNELS, CHANNELS_MLP, BATCH = 6, 5, 11, 3
PATCH = 4

# For each layer: a function that creates it, and its oracle.
LAYERS = {
    "norm": (lambda **options: Affine(**options), oracle.affine),
    "scale": (
        lambda **options: LayerScale(0.1, **options),
        oracle.layer_scale,
    ),
    "mixing": (
        lambda **options: TokenLinear(**options),
        oracle.token_linear,
    ),
    "block_0": (
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


def tiny_resmlp(**options):
    """A whole ResMLP, of 2 blocks, from pixels in [0, 255] to logits."""
    return keras_mixer.ResMLP(
        PATCH,
        2,
        CHANNELS,
        CHANNELS_MLP,
        0.1,
        input_shape=IMAGE,
        classes=CLASSES + 2,
        **{"classifier_activation": None, **options},
    )


def tokens():
    rng = np.random.default_rng(2)
    return rng.standard_normal((BATCH, TOKENS, CHANNELS)).astype("float32")


def to_numpy(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_the_oracle(name):
    model, weights = model_of(name)
    weights = {path: array.astype("float64") for path, array in weights.items()}
    expected = LAYERS[name][1](tokens().astype("float64"), weights, name)
    np.testing.assert_allclose(
        model.predict(tokens(), verbose=0), expected, rtol=0, atol=1e-5
    )


def test_every_stage_equals_the_oracle(images):
    model = tiny_resmlp()
    weights = randomise(model)
    weights = {path: array.astype("float64") for path, array in weights.items()}
    expected = oracle.resmlp(images, weights, PATCH)
    stages = keras.Model(
        model.input, {name: model.get_layer(name).output for name in expected}
    )
    received = stages.predict(images, verbose=0)
    assert expected["block_1"].shape == (len(images), TOKENS, CHANNELS)
    for name, stage in expected.items():
        np.testing.assert_allclose(
            received[name], stage, rtol=0, atol=1e-5, err_msg=name
        )


# The paths within a block of ours and of timm's.
TIMM_BLOCK = {
    "token_norm/alpha": "norm1.alpha",
    "token_norm/beta": "norm1.beta",
    "token_mixing/dense/kernel": "linear_tokens.weight",
    "token_mixing/dense/bias": "linear_tokens.bias",
    "token_scale/gamma": "ls1",
    "channel_norm/alpha": "norm2.alpha",
    "channel_norm/beta": "norm2.beta",
    "channel_mixing/dense_0/kernel": "mlp_channels.fc1.weight",
    "channel_mixing/dense_0/bias": "mlp_channels.fc1.bias",
    "channel_mixing/dense_1/kernel": "mlp_channels.fc2.weight",
    "channel_mixing/dense_1/bias": "mlp_channels.fc2.bias",
    "channel_scale/gamma": "ls2",
}
TIMM_MODEL = {
    "stem/kernel": "stem.proj.weight",
    "stem/bias": "stem.proj.bias",
    "norm/alpha": "norm.alpha",
    "norm/beta": "norm.beta",
    "predictions/kernel": "head.weight",
    "predictions/bias": "head.bias",
} | {
    f"block_{i}/{ours}": f"blocks.{i}.{theirs}"
    for i in range(2)
    for ours, theirs in TIMM_BLOCK.items()
}


def load_into_timm(module, weights, names):
    """Gives `module` our weights `{path: array}`, strictly."""
    import torch

    assert weights.keys() == names.keys()
    state = {}
    for path, array in weights.items():
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif path.endswith(("alpha", "beta")):
            array = array[None, None]
        else:
            array = array.T
        state[names[path]] = torch.tensor(array.copy())
    module.load_state_dict(state, strict=True)
    return module.eval()


def test_block_equals_timm():
    import torch

    peers.import_timm()
    from timm.models.mlp_mixer import ResBlock

    model, weights = model_of("block_0")
    theirs = ResBlock(CHANNELS, TOKENS, mlp_ratio=CHANNELS_MLP / CHANNELS)
    names = {f"block_0/{path}": name for path, name in TIMM_BLOCK.items()}
    load_into_timm(theirs, weights, names)
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens())).numpy()
    received = model.predict(tokens(), verbose=0)
    assert np.abs(expected - tokens()).max() > 0.1
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_oracle_equals_timm(images):
    """This tests the oracle for whole ResMLPs, not our layers."""
    import torch

    peers.import_timm()
    from timm.data import IMAGENET_DEFAULT_MEAN
    from timm.data import IMAGENET_DEFAULT_STD
    from timm.models.mlp_mixer import Affine as TimmAffine
    from timm.models.mlp_mixer import MlpMixer
    from timm.models.mlp_mixer import ResBlock

    weights = randomise(tiny_resmlp())
    theirs = MlpMixer(
        num_classes=CLASSES + 2,
        img_size=IMAGE[:2],
        patch_size=PATCH,
        num_blocks=2,
        embed_dim=CHANNELS,
        mlp_ratio=CHANNELS_MLP / CHANNELS,
        block_layer=ResBlock,
        norm_layer=TimmAffine,
    )
    load_into_timm(theirs, weights, TIMM_MODEL)
    scaled = (images / 255 - IMAGENET_DEFAULT_MEAN) / IMAGENET_DEFAULT_STD
    with torch.no_grad():
        expected = theirs(
            torch.tensor(scaled.transpose(0, 3, 1, 2)).float()
        ).numpy()
    received = oracle.resmlp(images, weights, PATCH)["predictions"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_paths_and_shapes_of_the_weights_of_a_block():
    _, weights = model_of("block_0")
    shapes = {path: array.shape for path, array in weights.items()}
    assert list(shapes.items()) == [
        ("block_0/token_norm/alpha", (CHANNELS,)),
        ("block_0/token_norm/beta", (CHANNELS,)),
        ("block_0/token_mixing/dense/kernel", (TOKENS, TOKENS)),
        ("block_0/token_mixing/dense/bias", (TOKENS,)),
        ("block_0/token_scale/gamma", (CHANNELS,)),
        ("block_0/channel_norm/alpha", (CHANNELS,)),
        ("block_0/channel_norm/beta", (CHANNELS,)),
        ("block_0/channel_mixing/dense_0/kernel", (CHANNELS, CHANNELS_MLP)),
        ("block_0/channel_mixing/dense_0/bias", (CHANNELS_MLP,)),
        ("block_0/channel_mixing/dense_1/kernel", (CHANNELS_MLP, CHANNELS)),
        ("block_0/channel_mixing/dense_1/bias", (CHANNELS,)),
        ("block_0/channel_scale/gamma", (CHANNELS,)),
    ]


def test_initial_values_equal_the_official_code():
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


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_restored_from_its_configuration(name):
    layer = LAYERS[name][0](dtype="mixed_bfloat16", name=name)
    again = type(layer).from_config(layer.get_config())
    for _ in range(2):
        assert again.get_config() == layer.get_config()
        assert again(tokens()).dtype == layer(tokens()).dtype
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


def test_dtypes_of_inner_layers_are_restored_from_the_configuration():
    policies = keras.dtype_policies.DTypePolicyMap(
        keras.DTypePolicy("float32"),
        {
            "token_mixing/dense": keras.DTypePolicy("bfloat16"),
            "channel_mixing/dense_1": keras.DTypePolicy("float16"),
            "channel_scale": keras.DTypePolicy("mixed_bfloat16"),
        },
    )
    block = ResMLPBlock(CHANNELS_MLP, 0.1, dtype=policies)
    for _ in range(2):
        block(tokens())
        assert block.token_mixing.dense.compute_dtype == "bfloat16"
        assert block.channel_mixing.dense_0.compute_dtype == "float32"
        assert block.channel_mixing.dense_1.compute_dtype == "float16"
        assert block.token_scale.compute_dtype == "float32"
        assert block.channel_scale.compute_dtype == "bfloat16"
        block = ResMLPBlock.from_config(block.get_config())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float16"])
def test_symbolic_shape_and_dtype_equal_the_eager_ones(name, dtype):
    make, _ = LAYERS[name]
    symbolic = make(dtype=dtype)(keras.Input((TOKENS, CHANNELS)))
    eager = make(dtype=dtype)(tokens())
    assert tuple(symbolic.shape) == (None, TOKENS, CHANNELS)
    assert tuple(eager.shape) == (BATCH, TOKENS, CHANNELS)
    assert symbolic.dtype == keras.backend.standardize_dtype(eager.dtype)


def test_token_mixing_processes_channels_separately():
    model, _ = model_of("mixing")
    changed = tokens()
    changed[:, :, 3] += 1
    difference = model.predict(changed, verbose=0) - model.predict(
        tokens(), verbose=0
    )
    assert set(np.flatnonzero(np.abs(difference).max((0, 1)))) == {3}


def test_bfloat16_is_close_to_float32():
    model, weights = model_of("block_0")
    half, same = model_of("block_0", dtype="mixed_bfloat16")
    np.testing.assert_equal(same, weights)
    assert half.output.dtype == "bfloat16"
    expected = model.predict(tokens(), verbose=0)
    received = to_numpy(half(tokens()))
    assert (received != expected).any()
    np.testing.assert_allclose(received, expected, atol=0.03, rtol=0.02)


def test_affine_computes_in_float32_under_mixed_precision():
    layer = Affine(dtype="mixed_bfloat16")
    layer.build((None, TOKENS, CHANNELS))
    layer.beta.assign(np.full(CHANNELS, -300.0))
    # At 300, neighbors in bfloat16 are 2 apart.
    y = layer(300 + tokens())
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    np.testing.assert_allclose(to_numpy(y), tokens(), atol=2e-2)
    assert layer.alpha.dtype == "float32"


def test_scale_too_small_for_float16_has_an_effect():
    layer = LayerScale(1e-8, dtype="mixed_float16")
    x = keras.ops.cast(1e4 * tokens(), "float16")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(to_numpy(y), 1e-4 * tokens(), atol=1e-6)


def test_training_changes_every_weight(images):
    model = tiny_resmlp(classifier_activation="softmax")
    before = randomise(model)
    loss = fit_tiny(model, images)
    assert loss[-1] < loss[0]
    for path, variable in loading.variables_of(model.layers).items():
        assert (variable.numpy() != before[path]).all(), path


def test_dropout_is_only_active_in_training():
    # Only the channel branch has dropout.
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


def test_branches_of_a_block_drop_samples_independently():
    block = ResMLPBlock(CHANNELS_MLP, 0.7, stochastic_depth_rate=0.5)
    x = np.repeat(tokens()[:1], 64, axis=0)
    still = to_numpy(block(x)).reshape(64, -1)
    assert np.ptp(still, axis=0).max() < 1e-5
    y = to_numpy(block(x, training=True)).reshape(64, -1)
    # Neither, one, the other, both.
    assert len(np.unique(y.round(4), axis=0)) == 4
    assert (np.abs(y - x.reshape(64, -1)).max(1) == 0).any()


def test_quantized_model_predicts_the_same_after_loading(images, tmp_path):
    model = tiny_resmlp()
    randomise(model)
    before = model.predict(images, verbose=0)
    model.quantize("int8")
    expected = model.predict(images, verbose=0)
    assert 0 < np.abs(expected - before).max() < 0.1 * np.ptp(before)
    for generation in range(2):
        model.save(tmp_path / f"{generation}.keras")
        model = keras.saving.load_model(tmp_path / f"{generation}.keras")
        block = model.get_layer("block_1")
        assert block.token_mixing.dense.quantization_mode == "int8"
        assert block.channel_mixing.dense_1.quantization_mode == "int8"
        np.testing.assert_array_equal(
            model.predict(images, verbose=0), expected
        )


def test_saved_model_predicts_the_same_after_loading(images, tmp_path):
    model = tiny_resmlp(stochastic_depth_rate=0.1, dropout_rate=0.1)
    randomise(model)
    model.save(tmp_path / "tiny.keras")
    again = keras.saving.load_model(tmp_path / "tiny.keras")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )


LISTED = {"mode": "list_of_layers", "layer_names": ["token_mixing"]}


@pytest.mark.parametrize(
    ("scope", "options"),
    [
        ({"mode": "full"}, {}),
        (LISTED, {"stochastic_depth_rate": 0.2}),
    ],
)
def test_rematerialisation_gives_equal_gradients(images, scope, options):
    results = []
    for own_scope in ({"mode": None}, scope):
        keras.utils.set_random_seed(3)
        with keras.RematScope(**own_scope):
            blocks = [
                ResMLPBlock(CHANNELS_MLP, 0.1, name=f"block_{i}", **options)
                for i in range(2)
            ]
        model = keras.Sequential([keras.Input(IMAGE[:2]), *blocks])
        model.add(keras.layers.GlobalAveragePooling1D())
        model.add(keras.layers.Softmax())
        randomise(model)
        results.append((fit_tiny(model, images[..., 0]), model.get_weights()))
    (loss, weights), (remat_loss, remat_weights) = results
    np.testing.assert_allclose(remat_loss, loss, rtol=1e-4)
    for received, expected in zip(remat_weights, weights, strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("scope", "options", "count"),
    [
        ({"mode": None}, {}, 2),
        ({"mode": "full"}, {}, 4),
        ({"mode": "full"}, {"stochastic_depth_rate": 0.2}, 4),
        ({"mode": "full"}, {"dropout_rate": 0.2}, 2),
        ({**LISTED, "layer_names": ["block_1"]}, {}, 3),
        (LISTED, {}, 2),
    ],
)
def test_only_deterministic_layers_are_rematerialised(scope, options, count):
    x = inputs = keras.Input((TOKENS, CHANNELS))
    with keras.RematScope(**scope):
        blocks = [
            ResMLPBlock(CHANNELS_MLP, 0.1, name=f"block_{i}", **options)
            for i in range(2)
        ]
    for block in blocks:
        x = block(x)
    # Each of the two blocks has one MLP. Token mixing has no activation.
    assert computations_of_gelu(keras.Model(inputs, x), tokens()) == count


ERRORS = [
    (
        lambda: ResMLPBlock(0, 0.1),
        ValueError,
        "`channels_mlp_dim` must be a positive integer. Received: "
        "channels_mlp_dim=0",
    ),
    (
        lambda: ResMLPBlock(2.5, 0.1),
        TypeError,
        "`channels_mlp_dim` must be a positive integer. Received: "
        "channels_mlp_dim=2.5 (of type float)",
    ),
    (
        lambda: ResMLPBlock(11, "0.1"),
        TypeError,
        "`layer_scale_init` must be a number. Received: "
        "layer_scale_init='0.1' (of type str)",
    ),
    (
        lambda: ResMLPBlock(11, None),
        TypeError,
        "`layer_scale_init` must be a number. Received: "
        "layer_scale_init=None (of type NoneType)",
    ),
    (
        lambda: LayerScale(True),
        TypeError,
        "`init_value` must be a number. Received: init_value=True (of type "
        "bool)",
    ),
    (
        lambda: ResMLPBlock(11, 0.1, dropout_rate=1.0),
        ValueError,
        "`dropout_rate` must be in [0, 1): ... dropout_rate=1.0",
    ),
    (
        lambda: ResMLPBlock(11, 0.1, stochastic_depth_rate=-0.1),
        ValueError,
        "`stochastic_depth_rate` must be in [0, 1): ... "
        "stochastic_depth_rate=-0.1",
    ),
    (
        lambda: ResMLPBlock(11, 0.1, stochastic_depth_rate="0.1"),
        TypeError,
        "`stochastic_depth_rate` must be a number. Received: "
        "stochastic_depth_rate='0.1' (of type str)",
    ),
    (
        lambda: TokenLinear()(keras.Input((None, 5))),
        ValueError,
        "Layer 'token_linear...' expects inputs of shape (batch, tokens, "
        "channels) with a known number of tokens, since its weights have one "
        "row for each token. Received: shape=(None, None, 5)",
    ),
    (
        lambda: ResMLPBlock(11, 0.1)(keras.Input((4, 6, 5))),
        ValueError,
        "Layer 'res_mlp_block...' expects inputs of shape (batch, tokens, "
        "channels) ... Received: shape=(None, 4, 6, 5)",
    ),
    (
        lambda: ResMLPBlock(11, 0.1)(keras.Input((6, None))),
        ValueError,
        "Layer 'token_norm' expects inputs of shape (batch, tokens, channels) "
        "with a known number of channels, because it has one weight per "
        "channel. Received: shape=(None, 6, None)",
    ),
    (
        lambda: LayerScale(0.1)(keras.Input((6, None))),
        ValueError,
        "Layer 'layer_scale...' expects inputs of shape (batch, tokens, "
        "channels) with a known number of channels, because it has one weight "
        "per channel. Received: shape=(None, 6, None)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_call_raises(call, error, message):
    with pytest.raises(error, match=matches(message)):
        call()
