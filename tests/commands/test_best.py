"""The best epoch of a training, and trainings that stop early."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer import data
from keras_mixer import training
from keras_mixer.cli.train import summary
from keras_mixer.models.anatomy import weights_of
from keras_mixer.training.best import is_over
from support.helpers import ROOT
from support.helpers import assert_equal
from support.helpers import python
from support.helpers import randomise


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


PARTS = {"train": 23, "val": 197}


def animals():
    """Random images of three classes: nothing can be learned from them."""
    import tensorflow as tf

    def part(count, seed):
        rng = np.random.default_rng(seed)
        pixels = tf.constant(rng.integers(0, 256, (count, 8, 12, 3), "uint8"))
        labels = tf.constant(rng.integers(0, 3, count))
        return data.Images(
            count, lambda index: (pixels[index], labels[index]), decoded=True
        )

    names = ("cat", "dog", "eel")
    train, test = (part(count, count) for count in PARTS.values())
    return data.Data("animals", names, (8, 12, 3), (), train, test)


def compiled(metrics=("accuracy",), **options):
    model = keras_mixer.Mixer(
        4,
        1,
        10,
        7,
        11,
        input_shape=(8, 12, 3),
        classes=3,
        classifier_activation=None,
    )
    randomise(model)
    model.compile(
        keras.optimizers.SGD(0.3, **options),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    return model


def fitted(folder, epochs, model=None, metrics=("accuracy",), **options):
    model = model or compiled(metrics)
    log = training.fit(
        model,
        animals(),
        None,
        training.open_run(folder, {}),
        batch_size=11,
        epochs=epochs,
        verbose=0,
        **options,
    )
    return model, log


def validated(model):
    """Returns the accuracy and the loss on the validation images."""
    results = model.evaluate(
        animals().validation(11), verbose=0, return_dict=True
    )
    return {f"val_{key}": value for key, value in results.items()}


@pytest.mark.backends
@pytest.mark.parametrize("use_ema", [False, True])
def test_weights_of_the_best_epoch_are_those_that_were_validated(
    use_ema, tmp_path
):
    options = {"use_ema": True, "ema_momentum": 0.7} if use_ema else {}
    model, log = fitted(
        tmp_path / "run", 9, compiled(**options), keep_best=True
    )
    best = training.best_epoch(log)
    assert best["epoch"] not in (0, 8)
    assert best["val_accuracy"] > log[-1]["val_accuracy"]
    assert training.load_best(tmp_path / "run", model) == best
    for key, value in validated(model).items():
        assert value == pytest.approx(best[key], rel=1e-5), key


def test_epochs_without_accuracy_are_compared_by_loss(tmp_path):
    model, log = fitted(tmp_path / "run", 5, metrics=["mse"], keep_best=True)
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


def command(photos, output, *added, epochs=8):
    """Returns the arguments of a training at a too high learning rate."""
    given = {
        "--data": photos,
        "--output": output,
        "--image-size": 8,
        "--epochs": epochs,
        "--batch-size": 32,
        "--learning-rate": 0.1,
    }
    pairs = [text for pair in given.items() for text in map(str, pair)]
    return ["train", *pairs, "--quiet", *added]


def best_of_run(folder):
    """Returns the weights of the best model and the results of a run."""
    model = keras.saving.load_model(folder / "best.keras")
    finished = training.read_run(folder)["finished"]
    del finished["seconds"]
    return weights_of(model), finished, training.read_log(folder)


@contextlib.contextmanager
def process_of(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_mixer", *arguments],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end
        time.sleep(0.0005)


def test_killed_training_has_the_same_best_epoch(photos, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # With averaged weights.
    added = ["--recipe", "resmlp.imagenet", "--learning-rate", "0.02"]
    added += ["--keep-best", "--patience", "2"]
    cli.main(command(photos, whole, *added, epochs=30))
    arguments = command(photos, killed, *added, epochs=30)
    for moment in (
        # Between the weights of the best epoch and the first checkpoint.
        lambda: best_files(killed),
        lambda: len(training.read_log(killed)) >= 3,
    ):
        with process_of(arguments) as process:
            wait_for(moment, process)
            os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "best.keras").exists()
    cli.main(arguments)
    weights, *facts = best_of_run(killed)
    expected, *others = best_of_run(whole)
    assert facts == others
    assert_equal(weights, expected)
    assert facts[0]["best_epoch"] == facts[0]["last_epoch"] - 2
    assert facts[0]["last_epoch"] < 30


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A training with `--keep-best` whose last epoch is not the best."""
    folder = tmp_path_factory.mktemp("best") / "run"
    cli.main(command(photos, folder, "--keep-best"))
    return folder


def refused(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return caught.value.code


def test_best_model_is_evaluated_and_predicts(run, photos, capsys):
    finished = training.read_run(run)["finished"]
    log = training.read_log(run)
    accuracies = [row["val_accuracy"] for row in log]
    assert finished["best_val_accuracy"] == max(accuracies)
    assert finished["best_epoch"] == 1 + accuracies.index(max(accuracies))
    assert finished["last_epoch"] == len(log)
    assert finished["accuracy"] == pytest.approx(accuracies[-1])
    assert finished["best_epoch"] < finished["last_epoch"]
    # The validation images are the test images here.
    for added, accuracy in (
        ([], finished["accuracy"]),
        (["--best"], finished["best_val_accuracy"]),
    ):
        cli.main(["evaluate", "--run", str(run), *added])
        assert f"accuracy: {accuracy:.6g}\n" in capsys.readouterr().out
    photo = next((photos / "test" / "digit 3").iterdir())
    predictions = []
    for added in ([], ["--best"]):
        cli.main(["predict", "--run", str(run), *added, str(photo)])
        predictions.append(capsys.readouterr().out)
    assert predictions[0] != predictions[1]


def test_finished_training_names_its_best_epoch(run, photos, capsys):
    """The same command again prints the result only."""
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    cli.main(command(photos, run, "--keep-best"))
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    finished = training.read_run(run)["finished"]
    assert (
        f"Best epoch on the validation images: {finished['best_epoch']} ("
        f"{100 * finished['best_val_accuracy']:.2f} %); last epoch: 8 ("
        f"{100 * finished['last_val_accuracy']:.2f} %). 'best.keras' is the "
        f"model of the best epoch. See '{run}'."
    ) in capsys.readouterr().out


FINISHED = {
    "accuracy": 0.5,
    "seconds": 3,
    "best_epoch": 4,
    "best_val_accuracy": 0.75,
    "last_epoch": 9,
    "last_val_accuracy": 0.5,
}


@pytest.mark.parametrize(
    ("changed", "expected", "proposed"),
    [
        ({}, "images: 4 (75.00 %); last epoch: 9 (50.00 %)", True),
        ({"last_val_accuracy": 0.74}, "images: 4 (75.00 %)", False),
        (
            {"best_epoch": 9, "last_val_accuracy": 0.75},
            "The last epoch, 9, was the best",
            False,
        ),
    ],
)
def test_summary_proposes_to_keep_the_best(changed, expected, proposed):
    text = summary({**FINISHED, **changed}, "nowhere")
    assert expected in text
    assert ("`--keep-best`" in text) == proposed


def test_result_of_an_earlier_version_is_printed():
    finished = {key: FINISHED[key] for key in ("accuracy", "seconds")}
    assert summary(finished, "nowhere") == (
        "Accuracy on the test images: 50.00 % (3 s). See 'nowhere'."
    )


def test_missing_best_model_is_reported(run, photos, tmp_path):
    message = refused("evaluate", "--best", "--data", photos)
    assert "`--best` is for the model of a training" in message
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "best.keras").unlink()
    message = refused("predict", "--run", other, "--best", photos)
    assert "A training keeps it if it is started with `--keep-best`" in message
    record = training.read_run(other)
    del record["finished"]
    (other / "run.json").write_text(json.dumps(record))
    message = refused("evaluate", "--run", other, "--best")
    assert "is not finished: it has no best.keras" in message


@pytest.mark.parametrize("patience", ["0", "-1"])
def test_wrong_patience_is_reported(patience, photos, tmp_path):
    message = refused(
        *command(photos, tmp_path / "run", "--patience", patience)
    )
    assert "patience" in message
    assert not (tmp_path / "run").exists()


def test_full_disk_keeps_the_earlier_best_epochs(tmp_path):
    """A limit on file sizes has the same effect as a full disk."""
    fitted(tmp_path / "run", 4, keep_best=True)
    files = sorted((tmp_path / "run" / "checkpoints").iterdir())
    before = {path: path.read_bytes() for path in files}
    code = f"""
import pathlib, resource, signal, sys
sys.path[:0] = [{str(ROOT / "tests")!r}, {os.path.dirname(__file__)!r}]
import test_best
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    test_best.fitted(pathlib.Path({str(tmp_path / "run")!r}), 9, keep_best=True)
except OSError as error:
    print(error)
"""
    said = python(code)
    assert said.startswith("The weights of epoch ")
    assert "the best so far, could not be saved: " in said
    assert {path: path.read_bytes() for path in before} == before
    left = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert left == files
