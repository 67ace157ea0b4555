"""`training.fit`: callbacks, learning rates, averages, weights of classes."""

import re
import types

import keras
import numpy as np
import pytest

from keras_mixer import data
from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.recipes import Augmentation
from support.animals import animals_model
from support.animals import fitted


def test_metrics_are_logged_and_curves_plotted(tmp_path):
    log = fitted(tmp_path / "run", 2, animals_model(["mse"]))[1]
    assert sorted(log[0]) == ["epoch", "loss", "mse", "val_loss", "val_mse"]
    training.finish(tmp_path / "run", {})
    assert (tmp_path / "run" / "curves.png").exists()


def test_resuming_with_other_metrics_raises_an_error(tmp_path):
    fitted(tmp_path / "run", 1)
    before = (tmp_path / "run" / "log.csv").read_text()
    other = animals_model(["accuracy", "mse"])
    with pytest.raises(ValueError, match="must be resumed with the same metr"):
        fitted(tmp_path / "run", 2, other)
    assert (tmp_path / "run" / "log.csv").read_text() == before
    _, log = fitted(tmp_path / "run", 2)
    assert [row["epoch"] for row in log] == [0, 1]


def test_wrong_callbacks_raise_an_error(tmp_path):
    with pytest.raises(TypeError, match="must be a list of Keras callbacks"):
        fitted(tmp_path / "run", 1, callbacks=[print])
    assert not (tmp_path / "run" / "log.csv").exists()


def test_training_that_stopped_early_is_resumed(tmp_path):
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=100)
    _, log = fitted(tmp_path / "run", 5, callbacks=[stop])
    assert len(log) == 2
    assert len(fitted(tmp_path / "run", 5)[1]) == 5


@pytest.mark.backends
def test_model_with_averaged_weights_is_trained_twice(tmp_path):
    """On JAX, weights and averages must not share memory."""
    model = animals_model(use_ema=True)
    for epochs in (1, 2, 2, 3):
        _, log = fitted(tmp_path / "run", epochs, model)
    assert len(log) == 3


def recipe_model(layer_decay=1.0, **options):
    model = animals_model()
    recipe = recipes.RECIPES["finetune.cifar"]
    compiled = recipes.compile_options(
        recipe, 100, 1, layer_decay=layer_decay, model=model, **options
    )
    model.compile(**compiled)
    return model


class Finder(keras.callbacks.Callback):
    """Looks for a good learning rate."""

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        optimizer.learning_rate = 2 * float(optimizer.learning_rate)


class Assigning(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate.assign(0.1)


class Setting(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        setattr(self.model.optimizer, "learning_rate", 0.1)  # noqa: B010


def by_lambda():
    callback = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(
            callback.model.optimizer, "learning_rate", 0.1
        ),
    )
    return callback


class Logger(keras.callbacks.Callback):
    """Reads the learning rate, and has one of its own."""

    def __init__(self):
        super().__init__()
        self.state = types.SimpleNamespace(learning_rate=0)
        self.learning_rate = []

    def on_train_batch_end(self, batch, logs=None):
        rate = float(self.model.optimizer.learning_rate)
        assert rate == training.learning_rate(self.model.optimizer)
        self.learning_rate = [*self.learning_rate, rate]
        self.state.learning_rate = rate


Logger.__module__ = "a module without a file"


SET = [
    lambda: keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=9),
    lambda: keras.callbacks.LearningRateScheduler(lambda _, rate: rate / 2),
    Finder,
    Assigning,
    Setting,
    by_lambda,
]


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.parametrize("make", SET)
def test_callback_that_sets_the_rate_of_a_schedule_is_refused(
    make, layer_decay, tmp_path
):
    message = "cannot set the learning rate of an optimizer with a schedule"
    with pytest.raises(ValueError, match=message):
        fitted(
            tmp_path / "run", 3, recipe_model(layer_decay), callbacks=[make()]
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


@pytest.mark.parametrize("make", SET)
def test_callback_sets_a_rate_that_is_a_number(make, tmp_path):
    model, _ = fitted(tmp_path / "run", 2, callbacks=[make()])
    assert training.learning_rate(model.optimizer) != pytest.approx(0.3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rates_of_layers_are_logged_under_names_that_stay(accumulate, tmp_path):
    """A second training in one process continues the first."""
    for epochs in (1, 2):
        logger = Logger()
        # It only logs, if there are fewer epochs.
        plateau = keras.callbacks.ReduceLROnPlateau(patience=9)
        model = recipe_model(0.7, accumulate=accumulate)
        callbacks = [logger, plateau]
        _, log = fitted(tmp_path / "run", epochs, model, callbacks=callbacks)
        assert len(logger.learning_rate) == 2
    rates = {key for key in log[1] if "rate" in key}
    names = ("block_0", "head", "stem")
    assert rates == {f"learning_rate_{name}" for name in names}


def unequal_images():
    """11 images of three classes, with 2, 3 and 6 images."""
    import tensorflow as tf

    labels = tf.constant(np.repeat([0, 1, 2], [2, 3, 6]))
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 12, 3))
    pixels = tf.constant(pixels.astype("uint8"))
    part = data.Images(
        11, lambda index: (pixels[index], labels[index]), decoded=True
    )
    names = ("cat", "dog", "eel")
    return data.Data("animals", names, (8, 12, 3), (), part, part)


def test_balanced_class_weights_equal_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(["cat", "dog", "eel"], [2, 3, 6])
    expected = compute_class_weight(
        "balanced", classes=np.unique(labels), y=labels
    )
    received = training.balanced_class_weights(unequal_images())
    np.testing.assert_allclose(list(received.values()), expected)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
@pytest.mark.parametrize(
    ("class_weights", "expected"),
    [
        ("balanced", [11 / 6, 11 / 9, 11 / 18]),
        ({"eel": 3, 0: 0.5}, [0.5, 1, 3]),
    ],
)
def test_class_weights_apply_to_mixed_images(
    class_weights, expected, mixup, tmp_path
):
    """Compares with the loss of the same batch in NumPy."""
    images = unequal_images()
    augmentation = Augmentation(crop="resize", flip=False, mixup=mixup)
    ((batch, labels),) = (
        images.train(augmentation, 11, seed=5).take(1).as_numpy_iterator()
    )
    keras.utils.set_random_seed(1)
    model = animals_model()
    logits = model.predict(batch, verbose=0)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -(labels * logs).sum(axis=1)
    log = training.fit(
        model,
        images,
        augmentation,
        training.open_run(tmp_path / "run", {}),
        batch_size=11,
        epochs=1,
        seed=5,
        class_weights=class_weights,
        verbose=0,
    )
    weights = labels @ np.array(expected)
    assert log[0]["loss"] == pytest.approx(np.mean(losses * weights), rel=1e-5)
    assert log[0]["loss"] != pytest.approx(np.mean(losses), rel=1e-2)


@pytest.mark.parametrize(
    ("class_weights", "error", "message"),
    [
        ({"cow": 2}, ValueError, "Received: 'cow' for ['cat', 'dog', 'eel']"),
        ({3: 2}, ValueError, "indices below 3. Received: 3 for"),
        ({True: 2}, ValueError, "Received: True"),
        (
            {"dog": 2, 1: 2},
            ValueError,
            "several weights for 'dog'",
        ),
        ({"dog": -1}, ValueError, "Received: -1 for 'dog'"),
        ({"dog": np.nan}, ValueError, "must be a finite number"),
        ({"dog": "2"}, TypeError, "must be a number"),
        ("equal", TypeError, '"balanced", or a dict'),
    ],
)
def test_wrong_class_weights_raise_errors(
    class_weights, error, message, tmp_path
):
    model = animals_model()
    with pytest.raises(error, match=re.escape(message)):
        training.fit(
            model,
            unequal_images(),
            None,
            tmp_path,
            batch_size=11,
            epochs=1,
            class_weights=class_weights,
        )
