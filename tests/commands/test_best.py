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
import pytest

from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli.train import summary
from keras_mixer.models.anatomy import weights_of
from support.helpers import ROOT
from support.helpers import assert_equal


def best_files(folder):
    return list((folder / "checkpoints").glob("best_*"))


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
