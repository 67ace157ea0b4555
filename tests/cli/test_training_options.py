"""Options of `train` and `finetune`, and what they print at the end."""

import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_mixer
from keras_mixer import cli
from keras_mixer import training
from keras_mixer.cli.train import summary
from keras_mixer.models.anatomy import weights_of
from support.helpers import ROOT
from support.training import options
from support.training import refused
from support.training import stop_after
from support.training import weights_of_run
from support.training import with_state

PARTS = {"train": "train", "validation": "Val", "test": "test"}


@pytest.fixture
def three_parts(photos, tmp_path):
    """Digits whose validation images are all in the wrong folder."""
    folder = tmp_path / "three_parts"
    for digit in (3, 4, 6):
        for part in ("train", "test"):
            name = f"digit {digit}"
            shutil.copytree(photos / part / name, folder / part / name)
    for right, wrong in ((3, 4), (4, 6), (6, 3)):
        target = folder / "Val" / f"digit {wrong}"
        target.mkdir(parents=True)
        source = photos / "test" / f"digit {right}"
        for file in sorted(source.iterdir())[:9]:
            shutil.copy(file, target)
    return folder


def test_finetuning_without_network_validates_and_tests_separately(
    three_parts, tmp_path, caplog, capsys, monkeypatch
):
    monkeypatch.setenv("KERAS_MIXER_OFFLINE", "1")
    caplog.set_level("INFO", "keras_mixer")
    run = tmp_path / "run"
    changed = {"model": None, "learning_rate": 0.1, "layer_decay": 0.9}
    command = options(three_parts, run, epochs=3, **changed)
    cli.main(["finetune", *command[1:]])
    record = training.read_run(run)
    assert record["settings"]["weights"] == "cifar10"
    assert record["recipe"]["optimizer"] == "sgd"
    counts = {key: record["data"][f"{key}_count"] for key in PARTS}
    assert counts == {
        key: len(list((three_parts / part).rglob("*.png")))
        for key, part in PARTS.items()
    }
    assert (
        "Training on {train} images, validating on {validation} after each "
        "epoch, testing on {test} at the end".format(**counts)
    ) in [logged.getMessage() for logged in caplog.records]
    assert training.read_log(run)[-1]["val_accuracy"] < 0.4
    assert record["finished"]["accuracy"] > 0.5
    capsys.readouterr()
    cli.main(["evaluate", "--run", str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert f"images: {counts['test']}" in lines
    assert f"accuracy: {record['finished']['accuracy']:.6g}" in lines


@pytest.mark.parametrize(
    ("freeze", "changed", "more"),
    [
        ("block_5", {"block_6", "block_7", "norm", "predictions"}, {}),
        ("-1", {"norm", "predictions"}, {"layer_decay": 0.8}),
    ],
)
def test_frozen_layers_are_not_trained(photos, tmp_path, freeze, changed, more):
    given = {"model": "MixerNano", "weights": "cifar10", "freeze": freeze}
    cli.main(options(photos, tmp_path / "run", epochs=1, **given, **more))
    before = weights_of(
        keras_mixer.MixerNano(
            weights="cifar10", include_top=False, input_shape=(8, 8, 3)
        )
    )
    after = weights_of_run(tmp_path / "run")
    assert {
        path.partition("/")[0]
        for path in after
        if path not in before or np.any(after[path] != before[path])
    } == changed
    settings = training.read_run(tmp_path / "run")["settings"]
    assert settings["freeze"] == {"-1": "block_7"}.get(freeze, freeze)


def test_model_of_a_training_is_fine_tuned_at_another_size(
    finished, photos, tmp_path
):
    command = options(
        photos,
        tmp_path / "run",
        weights=finished / "model.keras",
        image_size=16,
        epochs=1,
    )
    cli.main(["finetune", *command[1:]])
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == (None, 16, 16, 3)


def test_gray_images_class_weights_and_half_precision_are_used(
    photos, tmp_path
):
    run, policy = tmp_path / "run", keras.config.dtype_policy()
    changed = {"class_weights": "balanced", "precision": "mixed_float16"}
    command = options(photos, run, channels=1, batch_size=30, **changed)
    try:
        cli.main(command)
        stop_after(run, 1)
        cli.main(command)
    finally:
        keras.config.set_dtype_policy(policy)
    record = training.read_run(run)
    assert record["settings"]["channels"] == 1
    assert record["finished"]["accuracy"] > 0.4
    model = keras.saving.load_model(run / "model.keras")
    assert model.input_shape == (None, 8, 8, 1)
    cli.main(["evaluate", "--run", str(run)])


def test_training_with_remat_is_the_same(finished, photos, tmp_path):
    recipe = finished.parent / "mine.json"
    run = tmp_path / "run"
    cli.main(with_state(photos, run, recipe, "--remat"))
    received, expected = (
        training.read_log(folder)[0]["loss"] for folder in (run, finished)
    )
    assert received == pytest.approx(expected, rel=1e-4)
    assert training.read_run(run)["settings"]["remat"]


# The first learning rate is 0 if there are 21 updates, but not with 5 updates.
@pytest.mark.parametrize(("accumulate", "expected"), [(1, 3), (4, 5)])
def test_loss_that_is_not_finite_is_reported(
    photos, tmp_path, accumulate, expected
):
    output = tmp_path / "run"
    changed = {"model": None, "epochs": 3, "accumulate": accumulate}
    message = refused(*options(photos, output, learning_rate=1e30, **changed))
    found = re.search(
        r"The loss is not finite \((?:nan|inf)\) at step (\d) of epoch (\d), "
        r"with a learning rate of \d",
        message,
    )
    step, epoch = map(int, found.groups())
    assert (step, epoch) == (expected, 1)
    assert not (output / "model.keras").exists()
    message = refused("predict", "--run", output, "photo.png")
    assert "is not finished" in message


OWN = """
import functools
import keras_mixer

tiny = functools.partial(keras_mixer.Mixer, 4, 1, 10, 7, 11)
"""

# Hides libraries as if they were not installed.
WITHOUT = """
import sys
from importlib import metadata
from importlib.machinery import PathFinder

version = metadata.version

def hidden(name):
    if name in ("keras_mixer", "torch"):
        raise metadata.PackageNotFoundError(name)
    return version(name)

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        if name.partition(".")[0] in ("matplotlib", "tensorboard", "keras_cv"):
            return None
        return super().find_spec(name, *rest)

metadata.version = hidden
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from keras_mixer import cli
try:
    cli.main([*sys.argv[1:], "--recipe", "resmlp.imagenet"])
except SystemExit as error:
    print(error)
cli.main(sys.argv[1:])
"""


def test_training_in_a_process_with_few_libraries(photos, tmp_path, capsys):
    """The module of the own model is in the current folder.

    With -P, Python does not add this folder to the path of modules, as for a
    console command. The package has no metadata, as a checkout.
    """
    (tmp_path / "own_models.py").write_text(OWN)
    run = tmp_path / "run"
    command = options(photos, run, epochs=1, model="own_models:tiny")
    result = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    # RandAugment is refused before the folder is made.
    for name in ("keras-cv", "Matplotlib", "TensorBoard"):
        said = result.stdout if name == "keras-cv" else result.stderr
        assert f"needs {name}, which is not installed" in said
    assert not (run / "curves.png").exists()
    assert not (run / "tensorboard").exists()
    record = training.read_run(run)
    assert record["settings"]["model"] == "own_models:tiny"
    versions = record["environment"]["versions"]
    assert versions["keras_mixer"] == keras_mixer.__version__
    assert versions["torch"].startswith("2.")
    # The model does not need the module.
    photo = next((photos / "test" / "digit 3").iterdir())
    cli.main(["predict", "--run", str(run), str(photo)])
    model = keras.saving.load_model(run / "model.keras")
    assert model.get_layer("block_0").token_mixing.dense_0.units == 7


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


def test_best_model_is_evaluated_and_predicts(finished, photos, capsys):
    record = training.read_run(finished)["finished"]
    # The validation images are the test images here.
    for added, accuracy in (
        ([], record["accuracy"]),
        (["--best"], record["best_val_accuracy"]),
    ):
        cli.main(["evaluate", "--run", str(finished), *added])
        assert f"accuracy: {accuracy:.6g}\n" in capsys.readouterr().out
    message = refused("evaluate", "--best", "--data", photos)
    assert "`--best` is for the model of a training" in message


def test_missing_best_model_is_reported(copied, photos):
    run, _ = copied
    (run / "best.keras").unlink()
    message = refused("predict", "--run", run, "--best", photos)
    assert "A training keeps it if it is started with `--keep-best`" in message
    stop_after(run, 3)
    message = refused("evaluate", "--run", run, "--best")
    assert "is not finished" in message
