"""What `predict` does: names the most probable classes of photos."""

import mimetypes
import pathlib

import keras
import numpy as np

from keras_mixer.commands.trained import load_trained
from keras_mixer.data import finding
from keras_mixer.data.photos import load_image
from keras_mixer.optional import require


def predict(files, *, run=None, model=None, weights=None, top=5):
    """The most probable classes of photos, one photo after the other.

    Args:
        files: Paths of photos, or of folders: all images below them. Other
            files in a folder are passed over, unless they have the name of an
            image.
        run: Path of the folder of a training, or `None`.
        model: Otherwise the name of a constructor, by default "MixerNano".
        weights: Tag of its published weights.
        top: Integer, the number of classes for each photo.

    Returns:
        An iterator over `(path, result)`. The result is a list of `(name,
        probability)`; or a string, the reason why a file could not be read or
        a folder has no images.

    Raises:
        ValueError: As in `load_trained`, before the first photo is read.
    """
    trained = load_trained(run, model, weights)
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
    """Files, and the images below folders, each with a reason to skip it.

    The reason is `None` for files to read. Images are sorted within a folder.
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
    """Whether a file has the name of an image, or Pillow can open it."""
    image_module = require("PIL.Image")
    if _has_name_of_image(path):
        return True
    try:
        with image_module.open(path):
            return True
    # Pillow's formats raise nearly anything on files of another kind.
    except Exception:
        return False
