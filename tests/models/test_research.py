"""What docs/models.md shows for research: inside a block, and ablations."""

import keras
import numpy as np
from keras import ops

import keras_mixer
from support import oracle
from support.helpers import BATCH
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import call
from support.helpers import family_model
from support.helpers import randomise


def float64(weights):
    return {path: array.astype("float64") for path, array in weights.items()}


def test_activations_inside_a_mixer_block_equal_the_oracle(tiny, images):
    model = tiny()
    weights = float64(randomise(model))
    block = model.get_layer("block_1")
    x = model.get_layer("block_0").output  # the input of block_1
    mlp = block.token_mixing
    y = ops.swapaxes(block.token_norm(x), 1, 2)  # (batch, channels, tokens)
    before = mlp.dense_0(y)
    after = mlp.activation(before)
    mixed = x + ops.swapaxes(mlp.dense_1(after), 1, 2)
    inside = keras.Model(model.input, [before, after, mixed])
    received = call(inside, images)
    # In a model of its own: both MLPs have a layer `dense_0`.
    u = x + block.token_mixing(block.token_norm(x))
    channels = block.channel_mixing.dense_0(block.channel_norm(u))
    inside = keras.Model(model.input, channels)
    received.append(call(inside, images))

    # The same in NumPy.
    stages = oracle.mixer(images, weights, SIZES["patch_size"])
    x = stages["block_0"]
    y = oracle.layer_norm(x, weights, "block_1/token_norm")
    path = "block_1/token_mixing"
    before = np.swapaxes(y, 1, 2) @ weights[f"{path}/dense_0/kernel"]
    before = before + weights[f"{path}/dense_0/bias"]
    mixed = x + oracle.token_mixing(y, weights, path)
    y = oracle.layer_norm(mixed, weights, "block_1/channel_norm")
    path = "block_1/channel_mixing/dense_0"
    channels = y @ weights[f"{path}/kernel"] + weights[f"{path}/bias"]
    expected = [before, oracle.gelu_tanh(before), mixed, channels]
    assert before.shape == (BATCH, 10, 7)
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)

    # The model itself is not changed.
    np.testing.assert_allclose(
        call(keras.Model(model.input, block.output), images),
        stages["block_1"],
        rtol=0,
        atol=1e-5,
    )


def test_activations_inside_a_resmlp_block_equal_the_oracle(images):
    model = family_model("resmlp")
    weights = float64(randomise(model))
    block = model.get_layer("block_1")
    x = model.get_layer("block_0").output
    mixed = block.token_mixing(block.token_norm(x))
    inside = keras.Model(model.input, x + block.token_scale(mixed))
    x = call(keras.Model(model.input, x), images)
    y = oracle.affine(x.astype("float64"), weights, "block_1/token_norm")
    y = oracle.token_linear(y, weights, "block_1/token_mixing")
    expected = x + oracle.layer_scale(y, weights, "block_1/token_scale")
    received = call(inside, images)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


def without_token_mixing(model, num_blocks, mlp_dim):
    x = model.get_layer("tokens").output
    for i in range(num_blocks):
        norm = keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{i}")
        mixing = keras_mixer.ChannelMixing(mlp_dim, name=f"mixing_{i}")
        x = x + mixing(norm(x))
    return keras.Model(model.input, x)


def test_model_without_token_mixing_equals_the_oracle(tiny, images, tmp_path):
    model = without_token_mixing(tiny(), 2, 11)
    weights = float64(randomise(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = oracle.stem(images / 127.5 - 1, weights, SIZES["patch_size"])
    for i in range(2):
        y = oracle.layer_norm(x, weights, f"norm_{i}")
        x = x + oracle.channel_mixing(y, weights, f"mixing_{i}")
    for each in (model, loaded):
        received = call(each, images)
        np.testing.assert_allclose(received, x, rtol=0, atol=1e-5)

    counts = keras_mixer.macs(loaded)
    assert counts["mixing_1"] == 2 * 6 * 10 * 11
    assert "stem" in counts
    # A patch changes only its own token.
    changed = np.array(images)
    changed[:, : IMAGE[0] // 2, : IMAGE[1] // 3] += 9
    difference = call(loaded, changed) - received
    tokens = np.abs(difference).max(axis=(0, 2))
    assert (tokens > 1e-4).tolist() == [True] + 5 * [False]
