"""The best epoch of a training, and trainings that stop early."""

import shutil

import keras
import numpy as np
import pytest

from keras_mixer import training
from keras_mixer.models.anatomy import weights_of
from keras_mixer.training.best import is_over
from support.animals import animals_model
from support.animals import fitted
from support.animals import validated
from support.helpers import assert_equal


def rows(*accuracies, key="val_accuracy"):
    return [{"epoch": i, key: value} for i, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (rows(0.5, 0.75, 0.75, 0.625), 1),  # the first of equal ones
        (rows(3.0, 2.5, 2.5, 4.0, key="val_loss"), 1),
        (rows(np.nan, 2.0, 1.5, np.inf, key="val_loss"), 2),
        # The accuracy counts, not the loss.
        (
            [
                {"epoch": 0, "val_accuracy": 0.5, "val_loss": 1.0},
                {"epoch": 1, "val_accuracy": 0.6, "val_loss": 2.0},
            ],
            1,
        ),
    ],
)
def test_best_epoch_of_a_log(log, expected):
    assert training.best_epoch(log) is log[expected]


def test_log_without_finite_values_has_no_best_epoch():
    log = rows(np.nan, np.inf, np.nan, key="val_loss")
    assert training.best_epoch(log) is None
    assert training.best_epoch([]) is None
    assert not is_over(log, 4)
    assert is_over(log, 3)


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_early_stopping_equals_that_of_keras(patience):
    """Each training of up to 40 epochs with random accuracies."""
    rng = np.random.default_rng(patience)
    for _ in range(50):
        log = rows(*rng.integers(0, 30, 40).tolist())
        stop = keras.callbacks.EarlyStopping(
            "val_accuracy", patience=patience, mode="max"
        )
        model = keras.Sequential()
        model.stop_training = False
        stop.set_model(model)
        stop.on_train_begin()
        for count, row in enumerate(log, start=1):
            stop.on_epoch_end(row["epoch"], row)
            assert is_over(log[:count], patience) == model.stop_training
            if model.stop_training:
                break


@pytest.mark.backends
@pytest.mark.parametrize("use_ema", [False, True])
def test_weights_of_the_best_epoch_are_those_that_were_validated(
    use_ema, tmp_path
):
    options = {"use_ema": True, "ema_momentum": 0.7} if use_ema else {}
    model, log = fitted(
        tmp_path / "run", 9, animals_model(**options), keep_best=True
    )
    best = training.best_epoch(log)
    assert best["epoch"] not in (0, 8)
    assert best["val_accuracy"] > log[-1]["val_accuracy"]
    assert training.load_best(tmp_path / "run", model) == best
    for key, value in validated(model).items():
        assert value == pytest.approx(best[key], rel=1e-5), key


def test_epochs_without_accuracy_are_compared_by_loss(tmp_path):
    model, log = fitted(
        tmp_path / "run", 5, animals_model(["mse"]), keep_best=True
    )
    best = training.load_best(tmp_path / "run", model)
    assert best["val_loss"] == min(row["val_loss"] for row in log)
    assert validated(model)["val_loss"] == pytest.approx(best["val_loss"])


def best_files(folder):
    return sorted(
        path.name[:10] for path in (folder / "checkpoints").glob("best_*")
    )


def test_best_epoch_is_known_after_the_last_checkpoint_was_damaged(
    tmp_path, caplog
):
    """The epoch that the previous checkpoint belongs to had another best."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    expected, log = fitted(whole, 9, keep_best=True)
    training.load_best(whole, expected)
    bests = [training.best_epoch(log[: end + 1])["epoch"] for end in range(9)]
    replaced = [end + 1 for end in range(1, 9) if bests[end] != bests[end - 1]]
    assert replaced
    for epochs in replaced:
        shutil.rmtree(run, ignore_errors=True)
        fitted(run, epochs, keep_best=True)
        last = max((run / "checkpoints").glob("epoch_*"))
        last.write_bytes(b"")
        model, resumed = fitted(run, 9, keep_best=True)
        assert resumed == log
        assert training.load_best(run, model) == training.best_epoch(log)
        assert_equal(weights_of(model), weights_of(expected))
        assert len(best_files(run)) <= 3


def test_damaged_best_weights_are_reported(tmp_path, caplog):
    model, _ = fitted(tmp_path / "run", 3, keep_best=True)
    before = weights_of(model)
    for file in (tmp_path / "run" / "checkpoints").glob("best_*"):
        file.write_bytes(file.read_bytes()[:999])
    assert training.load_best(tmp_path / "run", model) is None
    assert "no undamaged weights of the best epoch" in caplog.text
    assert_equal(weights_of(model), before)


def test_training_stops_early_and_is_then_over(tmp_path):
    model, log = fitted(tmp_path / "run", 50, patience=3)
    best = training.best_epoch(log)
    assert len(log) == best["epoch"] + 1 + 3 < 50
    # As after a kill: in a new model, nothing is trained.
    again, same = fitted(tmp_path / "run", 50, patience=3)
    assert same == log
    assert_equal(weights_of(again), weights_of(model))


def test_resumed_training_has_the_same_patience(tmp_path):
    """It is resumed after each epoch, so no state in Python survives."""
    _, log = fitted(tmp_path / "whole", 50, patience=3)
    for epochs in range(1, len(log) + 5):
        _, resumed = fitted(tmp_path / "run", epochs, patience=3)
    assert resumed == log


@pytest.mark.parametrize(
    ("patience", "error"), [(0, ValueError), (1.5, TypeError)]
)
def test_wrong_patience_raises_an_error(patience, error, tmp_path):
    with pytest.raises(error, match="patience"):
        fitted(tmp_path / "run", 1, patience=patience)


def test_callbacks_see_the_averages_that_were_validated(tmp_path):
    """A training that Keras's callbacks stop ends with the best epoch."""
    model = animals_model(use_ema=True, ema_momentum=0.95)
    restore = keras.callbacks.EarlyStopping(
        patience=3, restore_best_weights=True
    )
    save = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5",
        monitor="val_loss",
        save_best_only=True,
        save_weights_only=True,
    )
    _, log = fitted(tmp_path / "run", 50, model, callbacks=[restore, save])
    assert len(log) < 50
    best = pytest.approx(min(row["val_loss"] for row in log), rel=1e-5)
    assert validated(model)["val_loss"] == best
    model.load_weights(tmp_path / "best.weights.h5")
    assert validated(model)["val_loss"] == best
