"""The command `predict`: the probabilities of the classes of photos."""

import typing
from collections.abc import Iterator

import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.commands.photos import photos_in
from keras_mixer.commands.trained import load_trained
from keras_mixer.data.photos import load_image


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
    photos = list(photos_in(files))
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
