"""Saved models: bit-identical in a new process, and on other backends."""

import keras
import numpy as np
import pytest

from support.helpers import CLASSES
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import SIZES
from support.helpers import family_model
from support.helpers import python
from support.helpers import randomise

BACKENDS = ("tensorflow", "jax", "torch")

# A new process loads the file.
PREDICT = """
import sys
import keras_mixer
import keras
import numpy as np
folder, file, out = sys.argv[1:]
model = keras.saving.load_model(f"{folder}/{file}")
images = np.load(f"{folder}/images.npy")
np.savez(f"{folder}/{out}", *model.get_weights(),
         predictions=model.predict(images, verbose=0))
"""

LOAD_WEIGHTS = """
import sys
import keras_mixer
import numpy as np
folder, sizes, classes = sys.argv[1:]
model = keras_mixer.Mixer(**eval(sizes), input_shape=(8, 12, 3),
    classes=int(classes), weights=f"{folder}/tiny.weights.h5")
images = np.load(f"{folder}/images.npy")
np.savez(f"{folder}/out.npz", *model.get_weights(),
         predictions=model.predict(images, verbose=0))
"""

SAVE = """
import sys
import torch
sys.path.insert(0, "tests")
import keras
import numpy as np
import keras_mixer
from support.helpers import CLASSES, IMAGE, SIZES, randomise
folder, name = sys.argv[1:]
model = keras_mixer.Mixer(**SIZES, input_shape=IMAGE, classes=CLASSES)
randomise(model)
model.save(f"{folder}/{name}.keras")
images = np.load(f"{folder}/images.npy")
np.savez(f"{folder}/{name}.npz", predictions=model.predict(images, verbose=0))
"""


def images():
    return np.random.default_rng(4).uniform(0, 255, (13, *IMAGE))


@pytest.mark.backends
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_round_trip_is_bit_identical_in_a_new_process(tiny, tmp_path, suffix):
    model = tiny(stochastic_depth_rate=0.1, dropout_rate=0.1)
    randomise(model)
    np.save(tmp_path / "images.npy", images())
    if suffix == ".keras":
        model.save(tmp_path / "tiny.keras")
        python(PREDICT, tmp_path, "tiny.keras", "out.npz")
    else:
        model.save_weights(tmp_path / "tiny.weights.h5")
        python(LOAD_WEIGHTS, tmp_path, SIZES, CLASSES)
    received = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(
        received["predictions"], model.predict(images(), verbose=0)
    )
    for i, array in enumerate(model.get_weights()):
        np.testing.assert_array_equal(received[f"arr_{i}"], array)


@pytest.mark.backends
def test_clone_has_the_same_configuration(tiny):
    model = tiny(activation="gelu", stochastic_depth_rate=0.2)
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    block = clone.get_layer("block_1")
    assert block.activation is keras.activations.gelu
    assert block.stochastic_depth.rate == 0.2


def test_saved_model_predicts_the_same_on_every_backend(tmp_path):
    np.save(tmp_path / "images.npy", images())
    for saver in BACKENDS:
        python(SAVE, tmp_path, saver, backend=saver)
    load_all = "\n".join(
        PREDICT.replace(
            "sys.argv[1:]",
            f"sys.argv[1], '{s}.keras', sys.argv[2] + '_{s}.npz'",
        )
        for s in BACKENDS
    )
    for loader in BACKENDS:
        python(load_all, tmp_path, loader, backend=loader)
        for saver in BACKENDS:
            expected = np.load(tmp_path / f"{saver}.npz")["predictions"]
            received = np.load(tmp_path / f"{loader}_{saver}.npz")
            np.testing.assert_allclose(
                received["predictions"], expected, rtol=0, atol=1e-5
            )


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES)
def test_training_of_a_frozen_model_goes_on_after_loading(
    family, images, tmp_path
):
    """The optimizer is restored without a warning: warnings are errors."""
    backbone = family_model(family, include_top=False, pooling="avg")
    backbone.trainable = False
    model = keras.Sequential([backbone, keras.layers.Dense(CLASSES)])
    model.compile("adam", "mse")
    labels = np.eye(CLASSES)[np.arange(len(images)) % CLASSES]
    options = {"batch_size": len(images), "shuffle": False, "verbose": 0}
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    model.fit(images, labels, epochs=2, callbacks=[checkpoint], **options)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.fit(images, labels, epochs=2, **options).history
    received = loaded.fit(images, labels, epochs=2, **options).history
    assert len(loaded.trainable_variables) == 2
    np.testing.assert_allclose(received["loss"], expected["loss"], rtol=1e-5)
