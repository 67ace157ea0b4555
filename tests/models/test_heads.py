"""New heads, and a model's way from a new head to an exported file."""

import keras
import numpy as np
import pytest

import keras_mixer
from support import oracle
from support.helpers import BATCH
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import call
from support.helpers import compile_model
from support.helpers import family_model
from support.helpers import randomise

every_family = pytest.mark.parametrize("family", FAMILIES)

BODIES = {
    "with top": {},
    "logits": {"classifier_activation": None},
    "mean": {"include_top": False, "pooling": "avg"},
    "tokens": {"include_top": False},
    "grid": {"include_top": False, "pooling": "grid"},
}
STAGES = {"mixer": oracle.mixer, "resmlp": oracle.resmlp}


@every_family
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_new_head_is_a_dense_layer_on_the_mean_of_the_tokens(
    family, body, images
):
    model = family_model(family, **body)
    model = keras_mixer.new_head(model, 3, activation=None)
    assert call(model, images).shape == (BATCH, 3)
    assert not np.any(call(model, images))  # starts at zero
    weights = randomise(model)
    assert weights["predictions/kernel"].shape == (10, 3)
    stages = STAGES[family](images, weights, SIZES["patch_size"])
    assert_close(call(model, images), stages["predictions"])
    without = keras_mixer.new_head(model, None)
    assert_close(call(without, images), stages["avg_pool"])


@every_family
def test_new_head_shares_the_weights_of_the_body(family, tmp_path):
    family_model(family).save(tmp_path / "model.keras")
    old = keras.saving.load_model(tmp_path / "model.keras")
    new = keras_mixer.new_head(old, 3)
    for layer in old.layers[1:]:
        if layer.name == "predictions":
            assert new.get_layer("predictions") is not layer
        else:
            assert new.get_layer(layer.name) is layer
    assert old.output_shape == (None, 5)
    assert new.name == old.name


def test_zero_classes_and_none_remove_the_head(images):
    model = family_model("mixer")
    expected = call(family_model("mixer", include_top=False), images).shape
    for classes in (0, None):
        pooled = keras_mixer.new_head(model, classes)
        assert call(pooled, images).shape == (BATCH, expected[-1])
        assert [layer.name for layer in pooled.layers][-1] == "avg_pool"
    largest = family_model("mixer", include_top=False, pooling="max")
    assert keras_mixer.new_head(largest, 0).layers[-1].name == "max_pool"


@pytest.mark.backends
def test_several_heads_are_trained_together(images):
    model = keras_mixer.new_head(
        family_model("mixer"),
        {"color": 4, "size": 1},
        activation={"color": "softmax", "size": None},
    )
    losses = {"color": "sparse_categorical_crossentropy", "size": "mse"}
    compile_model(model, "adam", loss=losses)
    labels = {
        "color": np.arange(BATCH) % 4,
        "size": np.linspace(0, 1, BATCH)[:, None],
    }
    model.fit(images, labels, batch_size=BATCH, verbose=0)
    result = call(model, images)
    assert {name: x.shape for name, x in result.items()} == {
        "color": (BATCH, 4),
        "size": (BATCH, 1),
    }
    np.testing.assert_allclose(result["color"].sum(axis=1), 1, rtol=1e-5)
    assert np.abs(result["size"].sum(axis=1) - 1).max() > 1e-3


def test_dropout_of_the_head_is_active_in_training_only(images):
    model = keras_mixer.new_head(
        family_model("mixer"), 3, activation=None, dropout_rate=0.5
    )
    randomise(model)
    x = keras.ops.convert_to_tensor(images, "float32")
    once, twice = (
        keras.ops.convert_to_numpy(model(x, training=True)) for _ in range(2)
    )
    assert np.abs(once - twice).max() > 1e-3
    np.testing.assert_array_equal(call(model, images), call(model, images))


def test_head_computes_in_float32_under_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = family_model("mixer", include_top=False)
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras_mixer.new_head(model, 3)
    assert model.get_layer("block_0").compute_dtype == "bfloat16"
    assert model.get_layer("avg_pool").compute_dtype == "float32"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert call(model, images).dtype == "float32"


@pytest.mark.backends
def test_head_on_a_quantized_body_is_trained(images):
    model = family_model("mixer")
    model.quantize("int8")
    model = keras_mixer.new_head(model, 3)
    keras_mixer.freeze(model, "norm")
    compile_model(model, "adam", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(BATCH) % 3, batch_size=BATCH, verbose=0)
    assert np.any(model.get_layer("predictions").get_weights()[0])


# The way of a user: new head, training, another resolution, fused, exported.
# Each form is a function of a backbone, which returns a model for 3 classes.
FORMS = {
    "flat": lambda backbone: keras_mixer.new_head(backbone, 3),
    "nested": lambda backbone: keras.Sequential(
        [
            keras.Input(IMAGE),
            keras.layers.RandomFlip("horizontal"),
            backbone,
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3, activation="softmax"),
        ]
    ),
}
LARGE = (8, 24, 3)  # twice as wide


@every_family
def test_model_goes_from_a_new_head_to_exported_files(family, images, tmp_path):
    wide = np.concatenate([images, images], axis=2)
    for form, build in FORMS.items():
        backbone = family_model(
            family,
            activation="gelu",  # that of timm's models
            include_top=False,
            pooling="avg",
        )
        model = build(backbone)
        train(model, images)
        large = keras_mixer.resize(model, LARGE)
        # With tiles, each half of the image is processed as before.
        expected = call(model, images)
        assert_close(call(large, wide), expected)
        fused = keras_mixer.fuse(large)
        assert type(fused) is type(model)
        fused.save(tmp_path / f"{form}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{form}.keras")
        assert_close(call(loaded, wide), expected)
        file = tmp_path / f"{form}.safetensors"
        keras_mixer.export_weights(large, file)
        options = {"input_shape": LARGE, "weights": file, "classes": 3}
        if family == "mixer":
            # Tiles make the MLP over tokens twice as wide.
            sizes = {**SIZES, "tokens_mlp_dim": 2 * SIZES["tokens_mlp_dim"]}
            loaded = keras_mixer.Mixer(**sizes, **options)
        else:
            loaded = family_model(family, **options)
        assert_close(call(loaded, wide), expected)


def train(model, images):
    compile_model(
        model, keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy"
    )
    labels = np.arange(BATCH) % 3
    history = model.fit(images, labels, epochs=3, batch_size=BATCH, verbose=0)
    loss = history.history["loss"]
    assert loss[-1] < loss[0]


def assert_close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


ERRORS = [
    ({"classes": -1}, "ValueError: `classes` must be a positive integer"),
    ({"classes": 1.5}, "TypeError: `classes` must be a positive integer"),
    ({"classes": False}, "TypeError: `classes` must be a positive integer"),
    ({"classes": {}}, "ValueError: `classes` must have at least one head"),
    (
        {"classes": {"color": 0}},
        "ValueError: `classes['color']` must be a positive integer",
    ),
    (
        {"classes": {"color": 2}, "activation": {"shape": None}},
        "ValueError: `activation` must have the same keys as `classes`",
    ),
    (
        {"classes": 2, "activation": {"color": None}},
        "TypeError: `activation` can be a dict only if `classes` is one",
    ),
    ({"classes": 2, "dropout_rate": 1}, "ValueError: `dropout_rate`"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_new_head_raises(arguments, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        keras_mixer.new_head(family_model("mixer"), **arguments)
    assert f"{caught.type.__name__}: {caught.value}".startswith(message)


def test_new_head_raises_for_models_without_one_trainable_body():
    model = family_model("mixer", name="body")
    with pytest.raises(ValueError, match="'body' is fused, so it is for inf"):
        keras_mixer.new_head(keras_mixer.fuse(model), 3)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="which has no block of a Mixer"):
        keras_mixer.new_head(other, 3)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        keras_mixer.new_head("model", 3)
