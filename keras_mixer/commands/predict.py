"""The command `predict`: the most probable classes of photos."""

import mimetypes
import pathlib

import keras
import numpy as np

from keras_mixer.commands.trained import load_trained
from keras_mixer.data import finding
from keras_mixer.data.photos import load_image
from keras_mixer.optional import require


def predict(files, *, run=None, model=None, weights=None, top=5, best=False):
    """Predicts the most probable classes of photos.

    Args:
        files: Paths of photos or folders. All images in a folder and its
            subfolders are used. Files that are not images are ignored, unless
            their name has the ending of an image.
        run: Path of the folder of a training, or `None`.
        model: If `run` is `None`, the name of a constructor, by default
            "MixerNano".
        weights: Tag of its published weights.
        top: Integer, the number of classes for each photo.
        best: Boolean, whether to use the model of the best epoch of the
            training.

    Returns:
        An iterator over `(path, result)`. The result is a list of `(name,
        probability)`, or a string with the reason if a file cannot be read or
        a folder has no images.

    Raises:
        ValueError: As in `load_trained`, before the first photo is read.
    """
    trained = load_trained(run, model, weights, best)
    names = trained.names[0]

    def result(file, reason):
        if reason:
            return reason
        try:
            image = load_image(file, trained.model, **trained.evaluation)
        except (OSError, ValueError) as error:
            return str(error)
        scores = keras.ops.convert_to_numpy(trained.model(image))[0]
        order = np.argsort(-scores, kind="stable")[:top]
        return [(names[i], float(scores[i])) for i in order]

    return ((file, result(file, reason)) for file, reason in _photos(files))


def _photos(files):
    """Yields `(path, reason)` of files and of the images in folders.

    The reason is `None` for files to read, else a string why the file is
    skipped. The images of a folder are sorted.
    """
    for file in files:
        if not pathlib.Path(file).is_dir():
            yield file, None
            continue
        skipped = []
        found = finding.files_below(pathlib.Path(file), skipped)
        photos = [(path, None) for path in found if _is_image(path)]
        photos += [each for each in skipped if _has_name_of_image(each[0])]
        for path, reason in photos:
            yield str(path), reason
        if not photos:
            yield file, "there is no image in this folder"


def _has_name_of_image(path):
    return (mimetypes.guess_type(path.name)[0] or "").startswith("image/")


def _is_image(path):
    """Returns whether a file has an image ending, or Pillow can open it."""
    image_module = require("PIL.Image")
    if _has_name_of_image(path):
        return True
    try:
        with image_module.open(path):
            return True
    # On other files, Pillow can raise almost any exception.
    except Exception:
        return False
