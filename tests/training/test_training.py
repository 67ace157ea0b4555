"""Training on real digits, and quantization and LoRA afterwards."""

import shutil

import keras
import numpy as np
import pytest

import keras_mixer
from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import compile_model
from support.helpers import computations_of_gelu
from support.helpers import digits_model
from support.helpers import fit_tiny
from support.helpers import randomise
from support.helpers import train_on_digits

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()


def accuracy(model, pair):
    x, y = pair
    predicted = model.predict(x, verbose=0, batch_size=len(x)).argmax(1)
    return (predicted == y).mean()


@pytest.mark.parametrize(
    "jit_compile",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                BACKEND == "torch" and shutil.which("g++") is None,
                reason="torch.compile needs a C++ compiler",
            ),
        ),
    ],
)
def test_fit_lowers_the_loss(tiny, images, jit_compile):
    model = tiny(num_blocks=1, dropout_rate=0.05)
    loss = fit_tiny(model, images, jit_compile=jit_compile)
    assert loss[0] == pytest.approx(np.log(CLASSES), rel=1e-3)
    assert loss[-1] < 0.9 * loss[0]


def test_every_weight_learns(tiny, images):
    model = tiny()
    before = randomise(model)
    fit_tiny(model, images)
    for layer in model.layers:
        for weight in layer.weights:
            assert (weight.numpy() != before[weight.path]).any(), weight.path


def test_transfer_learning_with_a_frozen_backbone(tiny, images, tmp_path):
    saved = tiny()
    randomise(saved)
    saved.save_weights(tmp_path / "tiny.weights.h5")
    backbone = tiny(
        include_top=False,
        pooling="avg",
        weights=tmp_path / "tiny.weights.h5",
    )
    backbone.trainable = False
    before = [array.copy() for array in backbone.get_weights()]
    model = keras.Sequential(
        [backbone, keras.layers.Dense(CLASSES, activation="softmax")]
    )
    loss = fit_tiny(model, images)
    assert len(model.trainable_weights) == 2
    assert loss[-1] < loss[0]
    for array, weight in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(array, weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_digits_are_learned(family, digits):
    model = train_on_digits(family, *digits[0])
    # 0.88 to 0.97, by the seed.
    assert accuracy(model, digits[1]) > 0.85


def test_bfloat16_agrees_with_float32(trained, digits):
    """Training works, and the same weights predict the same classes."""
    model = keras.saving.load_model(trained)
    (x, y), (x_test, _) = digits
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = digits_model("mixer", weights=trained)
        scratch = digits_model("mixer")
        optimizer = keras.optimizers.AdamW(4e-3)
        compile_model(scratch, optimizer, "sparse_categorical_crossentropy")
        history = scratch.fit(x, y, batch_size=64, epochs=3, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    same = model.predict(x_test, verbose=0).argmax(1) == half.predict(
        x_test, verbose=0
    ).argmax(1)
    assert same.mean() > 0.99
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]


@pytest.mark.parametrize(
    ("scope", "dropout_rate", "stochastic_depth_rate"),
    [
        ({"mode": "full"}, 0.2, 0.2),
        ({"mode": "activations"}, 0.0, 0.2),
        ({"mode": "larger_than", "output_size_threshold": 64}, 0.0, 0.0),
        ({"mode": "list_of_layers", "layer_names": ["block_0"]}, 0.0, 0.0),
    ],
    ids=lambda value: value["mode"] if isinstance(value, dict) else None,
)
def test_rematerialisation_gives_equal_gradients(
    tiny, images, scope, dropout_rate, stochastic_depth_rate
):
    results = []
    for options in ({"mode": None}, scope):
        keras.utils.set_random_seed(3)
        with keras.RematScope(**options):
            model = tiny(
                dropout_rate=dropout_rate,
                stochastic_depth_rate=stochastic_depth_rate,
            )
        randomise(model)
        results.append((fit_tiny(model, images), model.get_weights()))
    (loss, weights), (remat_loss, remat_weights) = results
    np.testing.assert_allclose(remat_loss, loss, rtol=1e-4)
    for received, expected in zip(remat_weights, weights, strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-3)


LISTED = {"mode": "list_of_layers"}
BLOCK_1 = {**LISTED, "layer_names": ["block_1"]}
TOKEN_MIXING = {**LISTED, "layer_names": ["token_mixing"]}


@pytest.mark.parametrize(
    ("scope", "dropout_rate", "stochastic_depth_rate", "count"),
    [
        ({"mode": None}, 0.0, 0.0, 4),
        ({"mode": "full"}, 0.0, 0.0, 8),
        ({"mode": "full"}, 0.0, 0.2, 8),
        ({"mode": "full"}, 0.2, 0.0, 4),
        # JAX does not recompute a sine, since its derivative does not need it.
        ({"mode": "activations"}, 0.0, 0.0, 4 if BACKEND == "jax" else 8),
        (BLOCK_1, 0.0, 0.0, 6),
        (BLOCK_1, 0.0, 0.2, 6),
        (TOKEN_MIXING, 0.0, 0.0, 6),
        (TOKEN_MIXING, 0.0, 0.2, 6),
    ],
)
def test_only_deterministic_parts_are_recomputed(
    tiny, images, scope, dropout_rate, stochastic_depth_rate, count
):
    with keras.RematScope(**scope):
        model = tiny(
            dropout_rate=dropout_rate,
            stochastic_depth_rate=stochastic_depth_rate,
            include_top=False,
        )
    # Four MLPs. The count would be more than 8 if the parts of a block were
    # rematerialised separately too.
    assert computations_of_gelu(model, images) == count


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_models_predict_save_and_load(
    trained, digits, mode, tmp_path
):
    model = keras.saving.load_model(trained, compile=False)
    before = accuracy(model, digits[1])
    model.quantize(mode)
    dense = model.get_layer("block_1").token_mixing.dense_0
    assert dense.quantization_mode == mode
    assert accuracy(model, digits[1]) == pytest.approx(
        before, abs={"int8": 0.01, "int4": 0.1}[mode]
    )
    expected = model.predict(digits[1][0], verbose=0)
    for generation in range(2):
        model.save(tmp_path / f"{generation}.keras")
        model = keras.saving.load_model(tmp_path / f"{generation}.keras")
        dense = model.get_layer("block_1").token_mixing.dense_0
        assert dense.quantization_mode == mode
        np.testing.assert_array_equal(
            model.predict(digits[1][0], verbose=0), expected
        )


def test_quantization_does_not_change_other_layers_of_a_block(trained):
    model = keras.saving.load_model(trained)
    model.quantize(
        "int8",
        filters=lambda layer: layer.path == "block_0/token_mixing/dense_1",
    )
    config = model.get_layer("block_0").get_config()
    block = keras_mixer.MixerBlock.from_config(config)
    block.build((None, 16, 48))
    assert block.token_mixing.dense_1.quantization_mode == "int8"
    assert block.token_mixing.dense_0.quantization_mode is None
    assert block.channel_mixing.dense_1.quantization_mode is None
    untouched = model.get_layer("block_1").get_config()
    assert untouched["dtype"] == model.get_layer("norm").get_config()["dtype"]


def test_lora_trains_few_weights_and_merges_when_saved(
    trained, digits, tmp_path
):
    model = keras.saving.load_model(trained)
    for i in range(2):
        block = model.get_layer(f"block_{i}")
        for mixing in (block.token_mixing, block.channel_mixing):
            mixing.dense_0.enable_lora(2)
            mixing.dense_1.enable_lora(2)
    count = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert count < model.count_params() / 3
    kernel = model.get_layer("block_0").token_mixing.dense_0._kernel.numpy()
    (x, y), test = digits
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:256], y[:256], epochs=1, verbose=0)
    after = model.get_layer("block_0").token_mixing.dense_0
    np.testing.assert_array_equal(after._kernel.numpy(), kernel)
    assert np.abs(after.lora_kernel_b.numpy()).max() > 0
    model.save(tmp_path / "lora.keras")
    # `compile=False`: the optimizer's state is for the LoRA weights, which no
    # longer exist.
    merged = keras.saving.load_model(tmp_path / "lora.keras", compile=False)
    np.testing.assert_allclose(
        merged.predict(test[0], verbose=0),
        model.predict(test[0], verbose=0),
        atol=1e-5,
    )
