"""Freezing of the first blocks."""

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer.models.anatomy import weights_of
from support.helpers import BATCH
from support.helpers import FAMILIES
from support.helpers import IMAGE
from support.helpers import compile_model
from support.helpers import family_model
from support.helpers import randomise

every_family = pytest.mark.parametrize("family", FAMILIES)

ALL = ("stem", "block_0", "block_1", "norm", "predictions")


def trained_layers(model, images, inner=None):
    """Names of the layers whose weights a step of training changes."""
    inner = inner or model
    before = weights_of(inner)
    compile_model(
        model, keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy"
    )
    model.fit(images, np.arange(BATCH) % 5, batch_size=BATCH, verbose=0)
    after = weights_of(inner)
    return {
        path.partition("/")[0]
        for path in before
        if np.any(before[path] != after[path])
    }


@pytest.mark.backends
@every_family
@pytest.mark.parametrize(
    ("until", "frozen"),
    [
        (None, 0),
        ("stem", 1),
        ("block_0", 2),
        (0, 2),
        (-1, 3),
        ("norm", 4),
    ],
)
def test_only_layers_that_are_not_frozen_are_trained(
    family, until, frozen, images
):
    model = family_model(family)
    randomise(model)
    assert keras_mixer.freeze(model, until) is model
    assert trained_layers(model, images) == set(ALL[frozen:])


@pytest.mark.backends
def test_freezing_again_frees_the_other_layers(images):
    model = family_model("mixer")
    randomise(model)
    model.trainable = False
    keras_mixer.freeze(model, "block_1")
    assert trained_layers(model, images) == {"norm", "predictions"}
    keras_mixer.freeze(model, "stem")
    assert trained_layers(model, images) == set(ALL[1:])


def test_inner_model_is_frozen(images):
    inner = family_model("mixer", include_top=False, pooling="avg")
    head = keras.layers.Dense(5, activation="softmax")
    model = keras.Sequential([keras.Input(IMAGE), inner, head])
    randomise(inner)
    keras_mixer.freeze(model, "block_0")
    assert trained_layers(model, images, inner) == {"block_1", "norm"}
    assert head.trainable_variables


def test_kernels_with_lora_stay_frozen():
    model = family_model("mixer")
    for i in range(2):
        block = model.get_layer(f"block_{i}")
        block.channel_mixing.dense_0.enable_lora(2)
    keras_mixer.freeze(model, "block_0")
    names = {
        variable.path.partition("block_1/")[2]
        for variable in model.trainable_variables
        if "channel_mixing/dense_0" in variable.path
    }
    assert names == {
        "channel_mixing/dense_0/bias",
        "channel_mixing/dense_0/lora_kernel_a",
        "channel_mixing/dense_0/lora_kernel_b",
    }


ERRORS = [
    ("block_7", "ValueError: There is no block 'block_7' in 'mixer'"),
    ("head", "Use one of: stem, norm, block_0, block_1, or an index such as"),
    (2, "ValueError: There is no block 2"),
    (1.5, "TypeError: A block must be a name or an index"),
]


@pytest.mark.parametrize(("until", "message"), ERRORS)
def test_freeze_raises_and_changes_nothing(until, message):
    model = family_model("mixer")
    model.get_layer("block_0").trainable = False
    count = len(model.trainable_variables)
    with pytest.raises((TypeError, ValueError)) as caught:
        keras_mixer.freeze(model, until)
    assert message in f"{caught.type.__name__}: {caught.value}"
    assert len(model.trainable_variables) == count


@pytest.mark.backends
def test_keras_ignores_trainable_on_tensorflow():
    """If this test fails, simplify `_set_trainable`."""
    model = family_model("mixer")
    model.get_layer("block_0").trainable = False
    model.trainable = True
    is_ignored = not model.get_layer("block_0").trainable
    assert is_ignored == (keras.backend.backend() == "tensorflow")
