"""Training with several seeds in one command."""

import json
import re

import keras
import numpy as np
import pytest

from keras_mixer import cli
from keras_mixer import training
from keras_mixer.models.anatomy import weights_of
from support.helpers import assert_equal
from support.helpers import python


def command(photos, output, *more, recipe="resmlp.imagenet"):
    """A training with averages, stochastic depth and mixed images."""
    given = [
        "train",
        *("--data", photos, "--output", output, "--recipe", recipe),
        *("--image-size", 8, "--epochs", 3, "--batch-size", 32),
        *("--learning-rate", 0.01, "--quiet", *more),
    ]
    return [str(argument) for argument in given]


def refused(arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code


def weights_of_run(folder):
    return weights_of(keras.saving.load_model(folder / "model.keras"))


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    cli.main(command(photos, folder, "--seeds", 3, 1))
    return folder


def test_summary_has_mean_and_deviation(runs, photos, capsys):
    assert sorted(path.name for path in runs.iterdir()) == [
        "seed_1",
        "seed_3",
        "summary.json",
    ]
    summary = json.loads((runs / "summary.json").read_text())
    results = {
        seed: training.read_run(runs / f"seed_{seed}")["finished"]
        for seed in ("3", "1")
    }
    assert summary["seeds"] == results
    accuracies = [result["accuracy"] for result in results.values()]
    assert accuracies[0] != accuracies[1]
    assert summary["mean"] == pytest.approx(np.mean(accuracies))
    deviation = summary["standard_deviation"]
    assert deviation == pytest.approx(np.std(accuracies, ddof=1))

    models = [file.read_bytes() for file in runs.rglob("model.keras")]
    cli.main(command(photos, runs, "--seeds", 3, 1))  # only prints
    assert [f.read_bytes() for f in runs.rglob("model.keras")] == models
    *lines, mean, see = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["seed 3", "seed 1"]
    assert re.findall(r"\d+\.\d\d", mean) == [
        f"{100 * summary['mean']:.2f}",
        f"{100 * deviation:.2f}",
    ]
    assert see == f"See '{runs}'."


def test_each_seed_equals_a_training_of_its_own(runs, photos, tmp_path):
    """In a process of its own. The first training must not change the second.

    The second one also ends early and is resumed.
    """
    single = tmp_path / "single"
    arguments = command(photos, single, "--seed", 1)
    python(f"from keras_mixer import cli; cli.main({arguments!r})")
    expected = weights_of_run(single)
    assert_equal(weights_of_run(runs / "seed_1"), expected)
    assert training.read_log(runs / "seed_1") == training.read_log(single)
    other = weights_of_run(runs / "seed_3")
    assert (other["stem/kernel"] != expected["stem/kernel"]).any()

    stopped = runs / "seed_1"
    record = training.read_run(stopped)
    del record["finished"]
    (stopped / "run.json").write_text(json.dumps(record))
    (stopped / "model.keras").unlink()
    sorted((stopped / "checkpoints").iterdir())[-1].unlink()
    cli.main(command(photos, runs, "--seeds", 3, 1))
    assert_equal(weights_of_run(runs / "seed_1"), expected)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", 1, 1], "Each seed must be given once. Received: [1, 1]"),
        (["--seeds", -1], "`seeds` must be a non-negative integer"),
        (["--seeds", 1, "--seed", 2], "`--seeds` cannot be used with `--seed`"),
        (["--seeds", 1, "--crop-ratio", 2], "`crop_ratio` must be in"),
    ],
)
def test_wrong_seeds_raise_errors_before_the_folder_is_created(
    photos, tmp_path, more, message
):
    assert message in refused(command(photos, tmp_path / "runs", *more))
    assert not (tmp_path / "runs").exists()


def test_folders_of_others_are_not_changed(photos, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    message = refused(command(photos, tmp_path, "--seeds", 1))
    assert "Received: ['notes.txt']" in message
    message = refused(command(photos, tmp_path / "notes.txt", "--seeds", 1))
    assert "Received: a file" in message
    run = training.open_run(tmp_path / "run", {"seed": 1})
    message = refused(command(photos, run, "--seeds", 1))
    assert "is the folder of one training" in message
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_seeds_with_other_settings_raise_an_error(runs, photos):
    before = (runs / "summary.json").read_bytes()
    other = command(photos, runs, "--seeds", 3, recipe="nano.cifar10")
    assert "belongs to another training" in refused(other)
    assert (runs / "summary.json").read_bytes() == before


def test_several_processes_cannot_train_several_seeds(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    message = refused(command(photos, tmp_path / "runs", "--seeds", 1))
    assert "Several seeds cannot be trained by several processes" in message
