"""ResMLP: comparison with the oracle and timm, and errors of its layers."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.layers.affine import LayerScale
from keras_mixer.layers.resmlp import ResMLPBlock
from keras_mixer.layers.resmlp import TokenLinear
from keras_mixer.weights import loading
from support import oracle
from support import peers
from support.helpers import CLASSES
from support.helpers import IMAGE
from support.helpers import call
from support.helpers import fit_tiny
from support.helpers import matches
from support.helpers import randomise

TOKENS, CHANNELS, CHANNELS_MLP, BATCH = 6, 5, 11, 3
PATCH = 4


def block_model():
    """Returns a block as a model, and its random weights."""
    inputs = keras.Input((TOKENS, CHANNELS))
    block = ResMLPBlock(CHANNELS_MLP, 0.1, name="block_0")
    model = keras.Model(inputs, block(inputs))
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


@pytest.mark.backends
def test_every_stage_equals_the_oracle(images):
    model = tiny_resmlp()
    weights = randomise(model)
    weights = {path: array.astype("float64") for path, array in weights.items()}
    expected = oracle.resmlp(images, weights, PATCH)
    stages = keras.Model(
        model.input, {name: model.get_layer(name).output for name in expected}
    )
    received = call(stages, images)
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

    model, weights = block_model()
    theirs = ResBlock(CHANNELS, TOKENS, mlp_ratio=CHANNELS_MLP / CHANNELS)
    names = {f"block_0/{path}": name for path, name in TIMM_BLOCK.items()}
    load_into_timm(theirs, weights, names)
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens())).numpy()
    received = call(model, tokens())
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


@pytest.mark.backends
def test_training_changes_every_weight(images):
    model = tiny_resmlp(classifier_activation="softmax")
    before = randomise(model)
    loss = fit_tiny(model, images)
    assert loss[-1] < loss[0]
    for path, variable in loading.variables_of(model.layers).items():
        assert (variable.numpy() != before[path]).all(), path


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
