"""Loads the model and the settings in the folder of a training."""

import pathlib

import keras

from keras_mixer import training
from keras_mixer.commands.checks import check_one_model
from keras_mixer.commands.models import Trained
from keras_mixer.commands.models import published
from keras_mixer.commands.models import published_record
from keras_mixer.commands.names import DEFAULT_MODEL
from keras_mixer.commands.settings import Settings


def settings_of(run):
    """Returns the `Settings` of the training in a folder.

    Raises:
        ValueError: If `run` is not the folder of a training, or was written by
            another version with other settings.
    """
    return Settings.from_record(training.read_run(run), run)


def load_trained(run, model=None, weights=None):
    """Loads the model of a training, or a model with published weights.

    Args:
        run: Path of the folder of a training, or `None`.
        model: If `run` is `None`, the name of a constructor, by default
            `DEFAULT_MODEL`.
        weights: Tag of its weights; see `default_weights` for the default.

    Returns:
        A `Trained`.

    Raises:
        ValueError: If the training is not finished, or the weights do not
            exist.
    """
    if run is None:
        model = model or DEFAULT_MODEL
        return published(model, published_record(model, weights))
    check_one_model(run, model, weights)
    settings = settings_of(run)
    file = pathlib.Path(run, training.MODEL_FILE)
    if not file.exists():
        raise ValueError(
            f"The training in '{run}' is not finished: it has no "
            f"{training.MODEL_FILE}. Repeat its command to resume it."
        )
    names = training.read_run(run)["data"]["class_names"]
    return Trained(keras.saving.load_model(file), [names], settings.evaluation)
