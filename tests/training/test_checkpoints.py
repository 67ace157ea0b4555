"""Checkpoints: what is kept, and what happens to damaged ones."""

import keras
import numpy as np
import pytest

from keras_mixer.training.checkpoints import Checkpoints


def model_with_state():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.Adam(0.1, use_ema=True), "mse")
    return model


def fit(model, callbacks, epochs, done=0):
    x, y = np.ones((8, 3)), np.ones((8, 2))
    model.fit(
        x,
        y,
        epochs=epochs,
        initial_epoch=done,
        verbose=0,
        callbacks=callbacks,
    )


@pytest.fixture
def saved(tmp_path):
    fit(model_with_state(), [Checkpoints(tmp_path)], epochs=4)
    return tmp_path


def test_last_checkpoints_are_kept(saved):
    names = sorted(path.name[:11] for path in saved.iterdir())
    assert names == ["epoch_00003", "epoch_00004"]
    fit(model_with_state(), [Checkpoints(saved, keep=1)], epochs=5, done=4)
    assert [path.name[:11] for path in saved.iterdir()] == ["epoch_00005"]


def test_checkpoint_of_another_model_raises_an_error(saved):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="the checkpoint of another model"):
        Checkpoints(saved).restore(model)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_checkpoint_falls_back_to_the_previous_one(saved, damage):
    before, last = sorted(saved.iterdir())
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[content.index(b"\x93NUMPY") + 128] ^= 1  # of an array
    else:
        content = b""
    last.write_bytes(content)
    model = model_with_state()
    assert Checkpoints(saved).restore(model) == 3
    before.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Every checkpoint in .* is damaged"):
        Checkpoints(saved).restore(model)
