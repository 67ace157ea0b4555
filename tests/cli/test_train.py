"""The folder of a training: what is in it, and how it is resumed."""

import json
import re
import shutil

import keras
import pytest

from keras_mixer import cli
from keras_mixer import training
from keras_mixer.training.finished import digest_of
from support.helpers import assert_equal
from support.training import RECIPE
from support.training import options
from support.training import refused
from support.training import snapshot
from support.training import stop_after
from support.training import weights_of_run
from support.training import with_state


def test_folder_has_all_data_to_repeat_the_training(finished, photos):
    assert sorted(path.name for path in finished.iterdir()) == [
        "best.keras",
        "checkpoints",
        "curves.png",
        "images.json",
        "log.csv",
        "model.keras",
        "run.json",
        "tensorboard",
    ]
    record = json.loads((finished / "run.json").read_text())
    settings = record["settings"]
    assert settings["data"] == str(photos)
    assert settings["model"] == "support.training:two_blocks"
    assert settings["recipe"] == {"source": "mine.json", **RECIPE}
    assert settings["learning_rate"] == RECIPE["learning_rate"]
    assert settings["batch_size"] == 30
    assert settings["crop_ratio"] == 1.0
    assert settings["image_size"] == [8, 8]
    assert record["recipe"]["augmentation"]["flip"] is False
    assert record["data"]["class_names"] == ["digit 3", "digit 4", "digit 6"]
    assert record["data"]["train_count"] == 210
    assert record["environment"]["versions"]["keras"] == keras.__version__
    log = training.read_log(finished)
    assert [row["epoch"] for row in log] == [0, 1, 2]
    assert record["finished"]["accuracy"] == log[-1]["val_accuracy"]
    assert record["model_digest"] == digest_of(finished / "model.keras")
    assert log[-1]["loss"] < log[0]["loss"]
    assert len(list((finished / "checkpoints").glob("epoch_*"))) == 2
    header = (finished / "curves.png").read_bytes()[:24]
    assert header[1:4] == b"PNG"
    assert int.from_bytes(header[16:20]) == 1080  # pixels wide


def test_finished_training_is_not_repeated(copied, capsys):
    run, command = copied
    before = snapshot(run)
    cli.main(command)
    assert snapshot(run) == before
    finished = training.read_run(run)["finished"]
    accuracies = [row["val_accuracy"] for row in training.read_log(run)]
    assert finished["best_val_accuracy"] == max(accuracies)
    assert finished["last_val_accuracy"] == accuracies[-1]
    printed = capsys.readouterr().out
    assert f"{100 * finished['accuracy']:.2f} %" in printed
    assert printed.endswith(f"See '{run}'.\n")


@pytest.mark.parametrize("epochs", [3, 2])
def test_stopped_training_is_resumed_to_the_same_result(copied, epochs):
    """Killed before the model was saved, and in the last epoch.

    The file of the recipe is not there any more.
    """
    run, command = copied
    weights, log = weights_of_run(run), training.read_log(run)
    stop_after(run, epochs)
    cli.main(command)
    assert_equal(weights_of_run(run), weights)
    assert training.read_log(run) == log


def test_other_settings_are_another_training(finished, photos, tmp_path):
    before = snapshot(finished)
    recipe = finished.parent / "mine.json"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**RECIPE, "learning_rate": 0.005}))
    for changed, message in (
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"accumulate": None}, "accumulate: 4 there, 1 now"),
        ({"class_weights": "balanced"}, "None there, 'balanced' now"),
        ({"epochs": 4}, "epochs: 3 there, 4 now"),
        ({"recipe": other}, "0.005"),
    ):
        given = {"recipe": recipe, **changed}
        said = refused(*with_state(photos, finished, **given))
        assert "belongs to another training" in said
        assert message in said
    assert snapshot(finished) == before


def test_folders_of_others_are_not_used(photos, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for output in (tmp_path, tmp_path / "thesis.txt"):
        message = refused(*options(photos, output))
        assert "not the folder of a training" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    message = refused("evaluate", "--run", tmp_path)
    assert "is not the folder of a training" in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"momentum": 1}, "settings: ['momentum']. Missing settings: []"),
        ({"seed": None}, "Unknown settings: []. Missing settings: ['seed']"),
    ],
)
def test_unknown_and_missing_settings_are_reported(
    changed, message, copied, photos
):
    run, command = copied
    record = training.read_run(run)
    settings = {**record["settings"], **changed}
    settings = {k: v for k, v in settings.items() if (k, v) != ("seed", None)}
    record = {**record, "settings": settings}
    (run / "run.json").write_text(json.dumps(record))
    before = snapshot(run)
    photo = next((photos / "test" / "digit 3").iterdir())
    for arguments in (
        command,
        ["evaluate", "--run", run],
        ["predict", "--run", run, photo],
    ):
        assert message in refused(*arguments)
    assert snapshot(run) == before


def test_changed_images_are_refused(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    command = options(tmp_path / "photos", tmp_path / "run", epochs=1)
    cli.main(command)
    before = snapshot(tmp_path / "run")
    one, other = sorted((tmp_path / "photos/train/digit 3").iterdir())[:2]
    shutil.copy(one, other)
    one.unlink()
    assert re.search(
        f"changed: '{other}'; missing or unreadable: '{one}'$",
        refused(*command),
    )
    assert snapshot(tmp_path / "run") == before


def test_run_may_be_directly_in_the_folder_of_the_images(photos, tmp_path):
    """It is no class when the training is resumed."""
    shutil.copytree(photos / "train", tmp_path / "photos")
    command = options(".", "run", epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "photos")
        cli.main(command)
        before = snapshot(tmp_path)
        cli.main(command)
    assert snapshot(tmp_path) == before
    record = training.read_run(tmp_path / "photos" / "run")
    assert len(record["data"]["class_names"]) == 3
