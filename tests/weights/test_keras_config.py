"""Tests reading grid, activation and pixel range from `.keras` files."""

import io
import json
import zipfile

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from keras_mixer.weights import keras_config
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import ModelConfig
from support.helpers import FAMILIES
from support.helpers import GOLDEN
from support.helpers import IMAGE
from support.helpers import assert_equal
from support.helpers import digits_model
from support.helpers import family_model
from support.helpers import randomise

LARGER = (8, 24, 3)  # from a grid of 2 x 3 to 2 x 6


@pytest.mark.parametrize("method", ["tile", "interpolate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keras_file_is_resized_like_its_model(family, method, tmp_path):
    model = family_model(family)
    randomise(model)
    model.save(tmp_path / "model.keras")
    expected = weights_of(keras_mixer.resize(model, LARGER, method))
    loaded = family_model(
        family,
        weights=tmp_path / "model.keras",
        input_shape=LARGER,
        resize=method,
    )
    assert_equal(weights_of(loaded), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_file_gives_the_weights_of_its_model(family):
    path = GOLDEN / f"digits_{family}.keras"
    expected = weights_of(keras.saving.load_model(path))
    assert_equal(weights_of(digits_model(family, weights=path)), expected)


def test_keras_and_npz_files_give_the_same_weights(tmp_path):
    model = family_model("mixer", input_shape=(12, 12, 3))
    randomise(model)
    model.save(tmp_path / "model.keras")
    keras_mixer.export_weights(model, tmp_path / "model.npz")
    one, other = (
        family_model("mixer", weights=tmp_path / name, input_shape=LARGER)
        for name in ("model.keras", "model.npz")
    )
    assert_equal(weights_of(one), weights_of(other))


def test_grid_of_channels_first_model_is_read(tmp_path, request):
    keras.config.set_image_data_format("channels_first")
    request.addfinalizer(
        lambda: keras.config.set_image_data_format("channels_last")
    )
    model = family_model("mixer", input_shape=(3, 8, 12))
    model.get_layer("channels_last").name = "no name is asked"
    randomise(model)
    model.save(tmp_path / "model.keras")
    expected = weights_of(keras_mixer.resize(model, (3, 8, 24)))
    loaded = family_model(
        "mixer", weights=tmp_path / "model.keras", input_shape=(3, 8, 24)
    )
    assert_equal(weights_of(loaded), expected)


def test_weights_h5_file_is_not_resized(tmp_path):
    model = family_model("mixer")
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(WeightsError, match="Only token mixing differs"):
        family_model(
            "mixer", weights=tmp_path / "model.weights.h5", input_shape=LARGER
        )


CHANGES = [
    {"scale": 1 / 255, "offset": 0.0},  # of MIIL
    {"scale": [0.02, 0.03, 0.05], "offset": [-1.0, 0.5, 2.0]},
    {"mean": 100.0, "variance": 50.0, "axis": None},
    {"mean": [90.0, 100.0, 120.0], "variance": [30.0, 40.0, 50.0]},
    {"mean": [1.0, 2.0, 3.0], "variance": [0.1, 0.2, 0.3], "invert": True},
]


@pytest.mark.parametrize("suffix", [".keras", ".npz", ".safetensors"])
@pytest.mark.parametrize("change", CHANGES)
def test_activation_and_pixel_range_are_loaded(tmp_path, suffix, change):
    images = np.random.default_rng(0).uniform(0, 255, (3, *IMAGE))
    body = family_model("mixer", activation="relu", include_top=False)
    randomise(body)
    config = body.get_config()
    for layer in config["layers"]:
        if layer["name"] == "preprocessing":
            if "mean" in change:
                layer["class_name"] = "Normalization"
                layer["config"] = {"name": "preprocessing"}
            layer["config"] |= change
    model = keras.Model.from_config(config)
    model.set_weights(body.get_weights())
    path = tmp_path / f"model{suffix}"
    if suffix == ".keras":
        model.save(path)
    else:
        keras_mixer.export_weights(model, path)
    loaded = family_model("mixer", include_top=False, weights=path)
    assert loaded.get_layer("block_0").activation is keras.activations.relu
    expected = keras.ops.convert_to_numpy(model(images))
    received = keras.ops.convert_to_numpy(loaded(images))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def squared(x):
    return x * x


@pytest.mark.parametrize("suffix", [".keras", ".npz", ".safetensors"])
def test_activation_of_the_user_must_be_given(tmp_path, suffix):
    model = family_model("mixer", activation=squared)
    arrays = randomise(model)
    path = tmp_path / f"model{suffix}"
    if suffix == ".keras":
        model.save(path)
    else:
        keras_mixer.export_weights(model, path)
    with pytest.raises(ValueError, match="identifier: squared"):
        family_model("mixer", weights=path)
    loaded = family_model("mixer", weights=path, activation=squared)
    assert_equal(weights_of(loaded), arrays)


def archive_of(text):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", text)
    return zipfile.ZipFile(file)


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"config": {"layers": [{"config": {"name": ["stem"]}}]}},
        {"config": {"layers": [{"config": {"name": "stem"}}]}},
        {"config": {"layers": [{"config": {"name": "a", "batch_shape": 3}}]}},
    ],
)
def test_missing_settings_are_none(config):
    received = keras_config.read(archive_of(json.dumps(config)))
    assert received == ModelConfig()


def test_scaling_with_nan_is_ignored():
    config = family_model("mixer").get_config()
    _, layer, _, *_ = config["layers"]
    layer["class_name"] = "Normalization"
    layer["config"] = {"name": "preprocessing", "variance": [1.0, 2.0, 3.0]}
    layer["config"]["mean"] = [1.0, float("nan"), 3.0]
    text = json.dumps({"config": config}, default=str)
    received = keras_config.read(archive_of(text))
    assert received.grid == (2, 3)
    assert received.scaling is None


def test_too_large_configuration_is_refused():
    archive = archive_of(" " * (keras_config.MAX_BYTES + 1))
    with pytest.raises(WeightsError, match="its configuration has 16777217"):
        keras_config.read(archive)
