"""Loads the model and the settings in the folder of a training."""

import pathlib

import keras

from keras_mixer import training
from keras_mixer.cli.checks import check_one_model
from keras_mixer.cli.names import DEFAULT_MODEL
from keras_mixer.cli.settings import Settings
from keras_mixer.commands.models import Trained
from keras_mixer.commands.models import published
from keras_mixer.commands.models import published_record


def settings_of(run):
    """Returns the `Settings` of the training in a folder.

    Raises:
        ValueError: If `run` is not the folder of a training, or was written by
            another version with other settings.
    """
    return Settings.from_record(training.read_run(run), run)


def load_trained(run, model=None, weights=None, best=False):
    """Loads the model of a training, or a model with published weights.

    Args:
        run: Path of the folder of a training, or `None`.
        model: If `run` is `None`, the name of a constructor, by default
            `DEFAULT_MODEL`.
        weights: Tag of its weights; see `default_weights` for the default.
        best: Boolean, whether to load the model of the best epoch of the
            training.

    Returns:
        A `Trained`.

    Raises:
        ValueError: If the training is not finished, or the weights do not
            exist.
    """
    if run is None:
        check_best(run, best)
        model = model or DEFAULT_MODEL
        return published(model, published_record(model, weights))
    check_one_model(run, model, weights)
    settings = settings_of(run)
    file = _model_file(run, best)
    names = training.read_run(run)["data"]["class_names"]
    return Trained(keras.saving.load_model(file), [names], settings.evaluation)


def check_best(run, best):
    """Raises an error if the best epoch is asked for without a training."""
    if best and run is None:
        raise ValueError(
            "`--best` is for the model of a training: give `--run FOLDER` too. "
            f"Received: run={run}, best={best}"
        )


def _model_file(run, best):
    """Returns the path of the model of a training."""
    name = training.BEST_FILE if best else training.MODEL_FILE
    file = pathlib.Path(run, name)
    if file.exists():
        return file
    if not best or "finished" not in training.read_run(run):
        raise ValueError(
            f"The training in '{run}' is not finished: it has no {name}. "
            "Repeat its command to resume it."
        )
    raise ValueError(
        f"The training in '{run}' has no {name}. A training keeps it if it is "
        "started with `--keep-best`. Leave out `--best` to use the model of "
        "the last epoch."
    )
