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
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import assert_equal
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


def test_activation_and_pixel_range_are_loaded(tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (3, *IMAGE))
    backbone = family_model("mixer", activation="gelu", include_top=False)
    normed = keras_mixer.Mixer(
        4, 2, 10, 7, 11, input_shape=IMAGE, include_top=False
    )
    randomise(backbone)
    # Scale pixels to [0, 1], as for the weights of MIIL.
    config = backbone.get_config()
    for layer in config["layers"]:
        if layer["name"] == "preprocessing":
            layer["config"] |= {"scale": 1 / 255, "offset": 0.0}
    model = keras.Model.from_config(config)
    model.set_weights(backbone.get_weights())
    model.save(tmp_path / "model.keras")
    loaded = keras_mixer.Mixer(
        *(4, 2, 10, 7, 11),
        input_shape=IMAGE,
        include_top=False,
        weights=tmp_path / "model.keras",
    )
    assert loaded.get_layer("block_0").activation is keras.activations.gelu
    assert normed.get_layer("block_0").activation is not keras.activations.gelu
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0),
        model.predict(images, verbose=0),
        rtol=0,
        atol=1e-6,
    )


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
    assert received == keras_config.ModelConfig()


def test_scaling_with_nan_is_ignored():
    layer = {"name": "preprocessing", "mean": [1.0, float("nan"), 3.0]}
    layer["variance"] = [1.0, 2.0, 3.0]
    config = {"config": {"layers": [{"config": layer}]}}
    received = keras_config.read(archive_of(json.dumps(config)))
    assert received.scaling is None


def test_too_large_configuration_is_refused():
    archive = archive_of(" " * (keras_config.MAX_BYTES + 1))
    with pytest.raises(WeightsError, match="its configuration has 16777217"):
        keras_config.read(archive)
