"""Features of chosen blocks."""

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

NETWORKS = {"mixer": oracle.mixer, "resmlp": oracle.resmlp}
NORMS = {"mixer": oracle.layer_norm, "resmlp": oracle.affine}


def assert_close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.backends
@every_family
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("form", ["grid", "tokens", "pooled"])
def test_features_equal_the_oracle(family, form, norm, images):
    model = family_model(family)
    weights = randomise(model)
    stages = NETWORKS[family](images, weights, SIZES["patch_size"])
    received = call(keras_mixer.features(model, "all", form, norm), images)
    assert list(received) == ["block_0", "block_1"]
    for name, features in received.items():
        expected = stages[name]
        if norm:
            expected = NORMS[family](expected, weights, "norm")
        expected = {
            "grid": expected.reshape(BATCH, 2, 3, 10),
            "tokens": expected,
            "pooled": expected.mean(axis=1),
        }[form]
        assert features.shape == expected.shape
        assert_close(features, expected)


@every_family
def test_pooled_features_of_the_last_block_are_the_input_of_the_head(
    family, images
):
    model = family_model(family, classifier_activation=None)
    randomise(model)
    features = call(keras_mixer.features(model, -1, "pooled"), images)
    kernel, bias = model.get_layer("predictions").get_weights()
    assert_close(call(model, images), features["block_1"] @ kernel + bias)


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        ("block_1", ["block_1"]),
        (0, ["block_0"]),
        (-1, ["block_1"]),
        ([1, "block_0", -1], ["block_1", "block_0"]),
        (np.int64(1), ["block_1"]),
        (("block_0",), ["block_0"]),
    ],
)
def test_blocks_are_chosen_by_name_or_index(blocks, names):
    features = keras_mixer.features(family_model("mixer"), blocks)
    assert list(features.output) == names


def changed(family, how, folder):
    """A model, and one that computes the same or has the same blocks."""
    model = family_model(family)
    randomise(model)
    if how == "saved":
        model.save(folder / "model.keras")
        return model, keras.saving.load_model(folder / "model.keras")
    if how == "fused":
        return model, keras_mixer.fuse(model)
    large = keras_mixer.resize(model, (8, 24, 3))
    return large, keras.models.clone_model(large)


@every_family
@pytest.mark.parametrize("how", ["saved", "fused", "resized"])
def test_features_of_changed_models(family, how, images, tmp_path):
    model, other = changed(family, how, tmp_path)
    if how == "resized":
        other.set_weights(model.get_weights())
        images = np.concatenate([images, images[:, :, ::-1]], axis=2)
    expected = call(keras_mixer.features(model, "all", norm=False), images)
    received = call(keras_mixer.features(other, "all", norm=False), images)
    for name in ("block_0", "block_1"):
        assert received[name].shape[1:3] == (
            (2, 6) if how == "resized" else (2, 3)
        )
        assert_close(received[name], expected[name])


@every_family
def test_norm_of_a_fused_model_is_used_only_if_it_is_whole(family, images):
    model = family_model(family)
    with pytest.raises(
        ValueError, match=r"is folded into its head\. Use `norm="
    ):
        keras_mixer.features(keras_mixer.fuse(model))
    backbone = family_model(family, include_top=False)
    randomise(backbone)
    expected = call(keras_mixer.features(backbone, -1, "tokens"), images)
    fused = keras_mixer.fuse(backbone)
    received = call(keras_mixer.features(fused, -1, "tokens"), images)
    assert_close(received["block_1"], expected["block_1"])


def test_norm_of_a_model_without_one_is_refused_for_that_reason():
    image = keras.Input(IMAGE)
    x = keras.layers.Conv2D(10, 4, 4, name="patches")(image)
    x = keras.layers.Reshape((-1, 10))(x)
    x = keras_mixer.MixerBlock(7, 11, name="block_0")(x)
    model = keras.Model(image, x, name="own")
    with pytest.raises(
        ValueError, match="'own' has no norm behind its last block"
    ):
        keras_mixer.features(model)
    output = keras_mixer.features(model, norm=False).output
    assert output["block_0"].shape == (None, 2, 3, 10)
    # `fuse` did not remove this scale.
    x = keras.layers.LayerNormalization(scale=False, center=False)(x)
    normed = keras_mixer.features(keras.Model(image, x))
    assert len(normed.layers) == len(keras.Model(image, x).layers) + 1


@every_family
@pytest.mark.parametrize("source", ["features", "constructor"])
def test_grid_is_saved_and_resized(family, source, images, tmp_path):
    if source == "features":
        model = keras_mixer.features(family_model(family), -1)
    else:
        model = family_model(family, include_top=False, pooling="grid")
    randomise(model)
    (grid,) = keras.tree.flatten(call(model, images))
    model.save(tmp_path / "grid.keras")
    loaded = keras.saving.load_model(tmp_path / "grid.keras")
    large = keras_mixer.resize(loaded, (8, 24, 3))
    wide = np.concatenate([images, images], axis=2)
    (received,) = keras.tree.flatten(call(large, wide))
    assert received.shape == (BATCH, 2, 6, 10)
    assert_close(received, np.concatenate([grid, grid], axis=2))


def test_grid_of_the_constructor_is_row_by_row(images):
    grid = family_model("mixer", include_top=False, pooling="grid")
    weights = randomise(grid)
    tokens = oracle.mixer(images, weights, SIZES["patch_size"])["norm"]
    assert_close(call(grid, images), tokens.reshape(BATCH, 2, 3, 10))


def test_grid_has_the_image_data_format(images):
    keras.config.set_image_data_format("channels_first")
    try:
        model = family_model(
            "mixer",
            input_shape=(3, 8, 12),
            include_top=False,
            pooling="grid",
        )
        features = keras_mixer.features(model, 0)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.output_shape == (None, 10, 2, 3)
    assert features.output["block_0"].shape == (None, 10, 2, 3)
    weights = randomise(model)
    tokens = oracle.mixer(images, weights, SIZES["patch_size"])["norm"]
    expected = tokens.reshape(BATCH, 2, 3, 10).transpose(0, 3, 1, 2)
    assert_close(call(model, images.transpose(0, 3, 1, 2)), expected)


@pytest.mark.backends
def test_segmentation_head_on_a_grid_is_trained(images):
    maps = keras_mixer.features(family_model("mixer"), [0, 1])
    x = keras.layers.Concatenate()(list(maps.output.values()))
    # Logits: on PyTorch 2.13, the gradient of a softmax after a convolution can
    # fail ("grad_input must be contiguous").
    patch = SIZES["patch_size"]
    x = keras.layers.Conv2DTranspose(4, patch, strides=patch)(x)
    model = keras.Model(maps.input, x)
    keras_mixer.freeze(model, "norm")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_model(model, keras.optimizers.Adam(0.05), loss)
    labels = (images.mean(axis=-1) // 64).astype("int32")
    loss = model.fit(
        images, labels, epochs=6, batch_size=BATCH, verbose=0
    ).history["loss"]
    assert model.output_shape == (None, *IMAGE[:2], 4)
    assert loss[-1] < loss[0]


ERRORS = [
    (
        {"blocks": "block_2"},
        "ValueError: There is no block 'block_2' in 'mixer",
    ),
    ({"blocks": "block_2"}, "Use one of: block_0, block_1, or an index"),
    ({"blocks": 2}, "ValueError: There is no block 2 in 'mixer', which has 2"),
    ({"blocks": -3}, "ValueError: There is no block -3"),
    ({"blocks": []}, "ValueError: `blocks` must have at least one block"),
    ({"blocks": 1.0}, "TypeError: A block must be a name or an index"),
    ({"blocks": [True]}, "TypeError: A block must be a name or an index"),
    ({"form": "image"}, "ValueError: `form` must be one of ['grid', "),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_features_raise(arguments, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        keras_mixer.features(family_model("mixer"), **arguments)
    assert message in f"{caught.type.__name__}: {caught.value}"
