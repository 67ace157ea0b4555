"""The folder of a training, its log, and the model that is saved there."""

import os
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_mixer import atomic
from keras_mixer import data
from keras_mixer import recipes
from keras_mixer import training
from keras_mixer.training import runs
from keras_mixer.training.checkpoints import Checkpoints
from support.animals import animals_model
from support.animals import fitted
from support.helpers import ROOT
from support.helpers import python


def test_folder_of_another_process_is_refused(tmp_path):
    _, log = fitted(tmp_path, 1)
    # Left behind by a process that was killed: the system has no lock for it.
    (tmp_path / "lock.txt").write_text("process 1 on another machine\n")
    with runs.locked(tmp_path):
        message = rf"'{tmp_path}': process {os.getpid()} on \S+\. Wait until"
        with pytest.raises(ValueError, match=message):
            fitted(tmp_path, 2)
        assert training.read_log(tmp_path) == log
    assert len(fitted(tmp_path, 2)[1]) == 2
    assert not (tmp_path / "lock.txt").exists()


def test_lock_that_its_owner_deletes_meanwhile_is_taken_again(
    tmp_path, monkeypatch
):
    lock, ends = runs.fcntl.flock, iter([(tmp_path / "lock.txt").unlink])

    def lock_late(*args):
        next(ends, bool)()  # the other process ends
        lock(*args)

    monkeypatch.setattr(runs.fcntl, "flock", lock_late)
    with (
        runs.locked(tmp_path),
        pytest.raises(ValueError, match="Another process trains in"),
        runs.locked(tmp_path),
    ):
        pass


def left_by_a_kill(path):
    """Returns what a process leaves that is killed while it replaces a path."""
    with atomic.replacing(path) as part:
        part.touch()
    return path.rename(part)


def test_unfinished_files_are_deleted(tmp_path):
    unfinished = [left_by_a_kill(tmp_path / "run.json")]
    fitted(tmp_path, 1)
    unfinished += map(
        left_by_a_kill,
        [tmp_path / "model.keras", tmp_path / "checkpoints" / "best_1.npz"],
    )
    report = left_by_a_kill(tmp_path / "evaluation")
    report.unlink()
    report.mkdir()
    fitted(tmp_path, 2)
    assert not any(path.exists() for path in unfinished)
    assert report.exists()


@pytest.mark.parametrize("cut", [1, 2, 9, 40])
def test_last_line_of_the_log_that_was_cut_is_dropped(cut, tmp_path):
    """Also if it has all cells: a number may have lost its last digits."""
    _, log = fitted(tmp_path, 2)
    path = tmp_path / "log.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert training.read_log(tmp_path) == log[:1]
    path.write_bytes(whole[: whole.rindex(b",") + 1])
    assert training.read_log(tmp_path) == log[:1]
    (tmp_path / "checkpoints" / "epoch_00002.npz").unlink()
    assert fitted(tmp_path, 2)[1] == log


@pytest.mark.parametrize("content", ["", "epoch,accu"])
def test_log_without_a_header_begins_again(content, tmp_path):
    fitted(tmp_path, 1)
    (tmp_path / "log.csv").write_text(content)
    assert [row["epoch"] for row in fitted(tmp_path, 2)[1]] == [1]


TAKE_A_FOLDER = {
    "open_run": lambda folder: training.open_run(folder, {}),
    "read_run": training.read_run,
    "read_log": training.read_log,
    "finish": lambda folder: training.finish(folder, {}),
    "fit": lambda folder: training.fit(
        animals_model(), None, None, folder, batch_size=1, epochs=1
    ),
    "load_best": lambda folder: training.load_best(folder, animals_model()),
    "save_model": lambda folder: training.save_model(folder, animals_model()),
    "plot": lambda folder: training.plot([], folder),
    "Checkpoints": Checkpoints,
    "read an index": lambda path: data.ImageIndex.read(pathlib.Path(path)),
    "write an index": lambda path: data.ImageIndex().write(pathlib.Path(path)),
}


@pytest.mark.parametrize("name", TAKE_A_FOLDER)
def test_folders_of_other_machines_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must be a path on this machine"):
        TAKE_A_FOLDER[name]("gs://bucket/run")
    assert not any(tmp_path.iterdir())


def files_in(folder):
    """Returns `{path: content}`, without those of TensorBoard."""
    paths = (path for path in folder.rglob("*.*") if path.is_file())
    return {
        path: path.read_bytes() for path in paths if "tfevents" not in path.name
    }


def test_full_disk_keeps_what_was_written(tmp_path):
    """A limit on file sizes has the same effect as a full disk."""
    fitted(tmp_path / "best", 3, keep_best=True)  # the next one is better
    model, _ = fitted(tmp_path / "last", 4)
    training.save_model(tmp_path / "last", model)
    before = files_in(tmp_path)
    code = f"""
import pathlib, resource, signal, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from keras_mixer import training
from support.animals import animals_model, fitted
folder = pathlib.Path({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
for action in (
    lambda: fitted(folder / "best", 9, keep_best=True),
    lambda: fitted(folder / "last", 9),
    lambda: training.save_model(folder / "last", animals_model()),
    lambda: training.finish(folder / "last", {{}}),
    lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 8000)),
    lambda: fitted(folder / "last", 9),
):
    try:
        action()
    except OSError as error:
        print(error)
"""
    best, last, saved, curves, lock = python(code).splitlines()
    assert "the best so far, could not be saved: " in best
    assert last.startswith("The checkpoint of epoch 5 could not be saved: ")
    for line in (best, last):
        assert "kept: start the training again to resume it." in line
    for line, file in (
        (saved, "model.keras"),
        (curves, "curves.png"),
        (lock, "lock.txt"),
    ):
        assert f"'{tmp_path / 'last' / file}' could not be written" in line
    after = files_in(tmp_path)
    assert after.keys() == before.keys()
    for path, content in before.items():
        assert path.suffix == ".csv" or after[path] == content


def test_folder_that_cannot_be_written_is_no_full_disk(tmp_path):
    training.open_run(tmp_path / "run", {})
    (tmp_path / "run" / "checkpoints").write_text("")
    with pytest.raises(OSError, match=r"not be saved: .*File exists: .*run/ch"):
        fitted(tmp_path / "run", 1)


def outputs_of(activation, loss, units=3):
    """Returns outputs of a model, and those of the model that is saved."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(units, activation=activation)]
    )
    model.compile("sgd", loss)
    return model


def softmax(x):
    exp = np.exp(x - x.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


LOGITS = {"from_logits": True}
SAVED = [
    (None, keras.losses.CategoricalCrossentropy(**LOGITS), softmax),
    (None, keras.losses.SparseCategoricalCrossentropy(**LOGITS), softmax),
    (None, recipes.sigmoid_crossentropy, lambda x: 1 / (1 + np.exp(-x))),
    ("softmax", "categorical_crossentropy", lambda x: x),
    ("softmax", "mse", lambda x: x),
    ("softplus", "categorical_crossentropy", lambda x: x),
]


@pytest.mark.parametrize(("activation", "loss", "expected"), SAVED)
def test_saved_model_returns_probabilities(
    activation, loss, expected, tmp_path
):
    model = outputs_of(activation, loss)
    training.save_model(tmp_path, model)
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert not saved.compiled
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    logits, probabilities = (
        keras.ops.convert_to_numpy(each(x)) for each in (model, saved)
    )
    np.testing.assert_allclose(probabilities, expected(logits), atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "loss", "units"),
    [
        (None, keras.losses.BinaryCrossentropy(**LOGITS), 3),  # several labels
        ("sigmoid", "binary_crossentropy", 3),
        (None, "mse", 1),  # a number
        (None, None, 3),
        (None, lambda y_true, y_pred: y_pred, 3),
    ],
)
def test_model_that_may_be_no_classifier_is_not_saved(
    activation, loss, units, tmp_path
):
    model = outputs_of(activation, loss, units)
    with pytest.raises(ValueError, match="a classifier with one label for eac"):
        training.save_model(tmp_path, model)
    assert not any(tmp_path.iterdir())
