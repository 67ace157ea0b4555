"""The command `predict`: the probabilities of the classes of photos."""

import glob
import mimetypes
import pathlib
import typing
from collections.abc import Iterator

import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.commands.trained import load_trained
from keras_mixer.data import finding
from keras_mixer.data.photos import load_image
from keras_mixer.optional import require


class Predictions(typing.NamedTuple):
    """The predictions for photos, in the order of the photos.

    `results` yields `(path, result)`. The result is an array of the
    probabilities of `names`, or a string with the reason if a file cannot be
    read, a folder has no images, or no file matches a pattern.
    """

    names: list  # of the classes
    paths: list  # of all photos, also of those that cannot be read
    results: Iterator


def predict(
    files, *, run=None, model=None, weights=None, batch_size=32, best=False
):
    """Predicts the probabilities of the classes of photos.

    Args:
        files: Paths of photos or folders, or patterns such as "photos/*.jpg".
            All images in a folder and its subfolders are used. Files that are
            not images are ignored, unless their name has the ending of an
            image.
        run: Path of the folder of a training, or `None`.
        model: If `run` is `None`, the name of a constructor, by default
            "MixerNano".
        weights: Tag of its published weights.
        batch_size: Positive integer, the photos that the model gets at once.
        best: Boolean, whether to use the model of the best epoch of the
            training.

    Returns:
        A `Predictions`.

    Raises:
        ValueError: As in `load_trained`, before the first photo is read.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    trained = load_trained(run, model, weights, best)
    photos = list(_photos(files))
    return Predictions(
        trained.names[0],
        [file for file, _ in photos],
        _results(trained, photos, batch_size),
    )


def _results(trained, photos, batch_size):
    for start in range(0, len(photos), batch_size):
        group = photos[start : start + batch_size]
        loaded = [_load(trained, *photo) for photo in group]
        images = [image for image in loaded if not isinstance(image, str)]
        if images and len(photos) > batch_size:
            # Batches of one size: TensorFlow and JAX compile the model again
            # for another size.
            images += [images[0]] * (batch_size - len(images))
        scores = iter(())
        if images:
            scores = iter(
                trained.model.predict_on_batch(np.concatenate(images))
            )
        for (file, _), image in zip(group, loaded, strict=True):
            yield file, image if isinstance(image, str) else next(scores)


def _load(trained, file, reason):
    """Returns a batch of one photo, or the reason why it cannot be read."""
    if reason:
        return reason
    try:
        return load_image(file, trained.model, **trained.evaluation)
    except (OSError, ValueError) as error:
        return str(error)


def _photos(files):
    """Yields `(path, reason)` of files and of the images in folders.

    The reason is `None` for files to read, else a string why the file is
    skipped. The images of a folder and the matches of a pattern are sorted.
    """
    for file in files:
        matches = _matches(file)
        if not matches:
            yield file, "no file matches this pattern"
        for match in matches:
            yield from _photos_of(match)


def _matches(file):
    """Returns the paths that match a pattern; or a path itself."""
    is_pattern = glob.has_magic(file) and not pathlib.Path(file).exists()
    return sorted(glob.glob(file, recursive=True)) if is_pattern else [file]


def _photos_of(file):
    if not pathlib.Path(file).is_dir():
        yield file, None
        return
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
