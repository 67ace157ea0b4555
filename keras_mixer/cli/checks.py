"""Checks of arguments that need neither Keras nor the images.

They come first: importing Keras takes seconds, decoding images minutes.
"""

import os
import pathlib

from keras_mixer.cli.names import MODELS
from keras_mixer.cli.names import is_own
from keras_mixer.cli.names import tags_of
from keras_mixer.optional import check_installed

# As in `weights.loading`, which imports Keras.
HUB = "hf://"


def check_training(settings):
    """Checks the settings of a training.

    Args:
        settings: `Settings`.

    Raises:
        ValueError: If a setting has a wrong value.
        OSError: If the folder of images does not exist.
        ImportError: If a required package is not installed.
    """
    check_images(settings.data, settings.dataset)
    _check_weights(settings.model, settings.weights)
    _check_size(settings.model, settings.image_size)
    check_installed("tensorflow")
    if settings.dataset is not None:
        check_installed("tensorflow_datasets")


def check_images(data, dataset):
    """Checks that one source of images is given, and that it exists.

    Args:
        data: Path of a folder, or `None`.
        dataset: Name of a TFDS data set, or `None`.
    """
    if (data is None) == (dataset is None):
        raise ValueError(
            "Give either `--data FOLDER` or `--dataset NAME` (of TFDS). "
            f"Received: data={data}, dataset={dataset}"
        )
    if data is not None and not pathlib.Path(data).is_dir():
        raise NotADirectoryError(
            "`--data` must be a folder that has a folder of images for each "
            f"class. Received: '{data}', which is not a folder"
        )


def check_one_model(run, model, weights):
    """Checks that a run or a published model is given, not both.

    Args:
        run: Path of the folder of a training, or `None`.
        model: Name of a constructor, or `None`.
        weights: Tag of its weights, or `None`.
    """
    if run is not None and (model, weights) != (None, None):
        raise ValueError(
            "Give either `--run`, or `--model` and `--weights`. "
            f"Received: run={run}, model={model}, weights={weights}"
        )


def _check_weights(model, weights):
    if weights is None or weights.startswith(HUB) or os.path.isfile(weights):
        return
    tags = [] if is_own(model) else tags_of(model)
    if weights not in tags:
        published = f"one of {tags} (published weights), " if tags else ""
        raise ValueError(
            f"`--weights` of {model} must be {published}the path of a weights "
            "file, or 'hf://organization/name' (a repository of the Hugging "
            f"Face hub). Received: weights={weights!r}"
        )


def _check_size(model, image_size):
    if image_size is None or is_own(model):
        return
    _, patch = MODELS[model]
    if any(side % patch for side in image_size):
        height, width = (max(1, round(s / patch)) * patch for s in image_size)
        near = height if height == width else f"{height}x{width}"
        raise ValueError(
            "The height and width of `--image-size` must be multiples of the "
            f"patch size of {model}, {patch}. Use {near}. "
            f"Received: image_size={image_size}"
        )
