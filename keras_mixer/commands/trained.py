"""The model that a training has left in its folder."""

import pathlib

import keras

from keras_mixer import training
from keras_mixer.commands.models import DEFAULT_MODEL
from keras_mixer.commands.models import Trained
from keras_mixer.commands.models import published
from keras_mixer.commands.models import published_record
from keras_mixer.commands.settings import Settings


def settings_of(run):
    """The `Settings` of the training in a folder.

    Raises:
        ValueError: If it is not the folder of a training, or was written by
            another version with other settings.
    """
    return Settings.from_record(training.read_run(run), run)


def load_trained(run, model=None, weights=None):
    """The model of a training, or one with published weights.

    Args:
        run: Path of the folder of a training, or `None`.
        model: Otherwise the name of a constructor, by default `DEFAULT_MODEL`.
        weights: Tag of its weights, by default as in `default_weights`.

    Returns:
        A `Trained`.

    Raises:
        ValueError: If the training is not finished, or there are no such
            weights.
    """
    if run is None:
        model = model or DEFAULT_MODEL
        return published(model, published_record(model, weights))
    if (model, weights) != (None, None):
        raise ValueError(
            "Give `--run`, or `--model` and `--weights`, not both. "
            f"Received: run={run}, model={model}, weights={weights}"
        )
    settings = settings_of(run)
    file = pathlib.Path(run, training.MODEL_FILE)
    if not file.exists():
        raise ValueError(
            f"The training in '{run}' is not finished: there is no "
            f"{training.MODEL_FILE}. Repeat its command to resume it."
        )
    names = training.read_run(run)["data"]["class_names"]
    return Trained(keras.saving.load_model(file), [names], settings.evaluation)
