"""Files of weights say how to use them."""

import operator

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from support.helpers import IMAGE
from support.helpers import assert_equal
from support.helpers import outputs
from support.helpers import randomise

MEAN, VARIANCE = [100.0, 120.0, 90.0], [3000.0, 2500.0, 4000.0]
# Layers in front of the stem that scale the pixels; no name is asked.
SCALINGS = {
    "per channel": lambda: keras.layers.Rescaling(
        np.array([0.02, 0.01, 0.03]), np.array([-1.0, -2.0, -0.5])
    ),
    "none": lambda: keras.layers.Permute((1, 2, 3)),
    "one mean": lambda: keras.layers.Normalization(None, 110.0, 3000.0),
    "per channel, inverted": lambda: keras.layers.Normalization(
        -1, [-1.0, -2.0, -0.5], [0.0004, 0.0001, 0.0009], invert=True
    ),
    "of the name of ours": lambda: keras.layers.Normalization(
        -1, MEAN, VARIANCE, name="preprocessing"
    ),
    "inverted, of the name of ours": lambda: keras.layers.Normalization(
        -1, MEAN, VARIANCE, invert=True, name="preprocessing"
    ),
}


def behind(scaling, tiny):
    image = keras.Input(IMAGE)
    return tiny(input_tensor=scaling(image), include_preprocessing=False)


def within(scaling, tiny):
    """A model with the scaling and ours in other models."""
    ours = keras.Sequential([tiny(include_preprocessing=False)])
    return keras.Sequential(
        [keras.Input(IMAGE), keras.Sequential([scaling]), ours]
    )


@pytest.mark.parametrize(
    ("make", "suffix"),
    [(behind, ".safetensors"), (behind, ".keras"), (within, ".safetensors")],
)
@pytest.mark.parametrize("name", SCALINGS)
def test_file_notes_what_the_layer_in_front_of_the_stem_computes(
    tmp_path, images, tiny, name, make, suffix
):
    model = make(SCALINGS[name](), tiny)
    randomise(model)
    if suffix == ".keras":
        model.save(tmp_path / "a.keras")
    else:
        keras_mixer.export_weights(model, tmp_path / f"a{suffix}")
    again = tiny(weights=tmp_path / f"a{suffix}")
    np.testing.assert_allclose(
        outputs(again, images), outputs(model, images), rtol=0, atol=1e-5
    )


def test_layer_that_no_file_can_describe_is_reported(tmp_path, tiny, caplog):
    """Without a note, the default scaling would be used without a word."""
    image = keras.Input(IMAGE)
    for layer, count in ((keras.layers.ReLU(6.0), 1), (lambda x: x, 0)):
        caplog.clear()
        model = tiny(input_tensor=layer(image), include_preprocessing=False)
        keras_mixer.export_weights(model, tmp_path / "a.safetensors")
        assert caplog.text.count("does not say what the layers") == count
        model.save(tmp_path / "a.keras")
        tiny(weights=tmp_path / "a.keras")
        assert caplog.text.count("does not say what the layers") == 2 * count


@pytest.mark.parametrize("activation", ["gelu", keras_mixer.layers.gelu_tanh])
def test_file_notes_the_activation(tmp_path, images, tiny, activation):
    """Files of timm do not say it. With this note nothing is guessed."""
    model = tiny(activation=activation)
    arrays = randomise(model)
    keras_mixer.export_weights(model, tmp_path / "a.safetensors")
    again = tiny(weights=tmp_path / "a.safetensors")
    assert_equal(weights_of(again), arrays)
    np.testing.assert_array_equal(
        outputs(again, images), outputs(model, images)
    )


# What no file can say: the path of a layer, and its new activation.
OWN_ACTIVATIONS = [
    ("stem", "relu"),
    ("block_0.channel_mixing", "relu"),
    ("block_1.channel_mixing", "relu"),
    ("block_1.token_mixing.dense_1", "tanh"),
]


@pytest.mark.parametrize(("path", "activation"), OWN_ACTIVATIONS)
def test_own_activation_inside_is_refused(tmp_path, tiny, path, activation):
    model = tiny()
    name, _, inside = path.partition(".")
    layer = model.get_layer(name)
    if inside:
        layer = operator.attrgetter(inside)(layer)
    layer.activation = keras.activations.get(activation)
    message = rf"support one activation.*in \['{name}'\]"
    with pytest.raises(ValueError, match=message):
        keras_mixer.export_weights(model, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=rf"strides.*\['{name}'\]"):
        tiny(weights=tmp_path / "a.keras")


def test_stem_with_overlapping_patches_is_refused(tmp_path):
    image = keras.Input(IMAGE)
    x = keras.layers.Conv2D(10, 6, 4, padding="same", name="stem")(image)
    x = keras.layers.Reshape((6, 10))(x)
    x = keras_mixer.MixerBlock(7, 11, name="block_0")(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    with pytest.raises(ValueError, match="its kernel size as stride"):
        keras_mixer.export_weights(keras.Model(image, x), tmp_path / "a.npz")


def test_address_of_a_cloud_is_no_path(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="`path` must be a path on this mach"):
        keras_mixer.export_weights(tiny(), "s3://bucket/a.safetensors")
    assert list(tmp_path.iterdir()) == []
