"""The command `export`: a file of a model for another runtime."""

import numpy as np

from keras_mixer import exporting
from keras_mixer.commands.photos import photos_in
from keras_mixer.commands.subjects import load_subject
from keras_mixer.data.photos import load_image
from keras_mixer.models import fusing

# The number of photos for calibration.
MOST_PHOTOS = 100


def export(
    model,
    target,
    *,
    format=None,
    dtype="float32",
    input_dtype="float32",
    calibrate=None,
    fuse=False,
    check=True,
    overwrite=False,
):
    """Exports a model to a file.

    Args:
        model: The folder of a training, a `.keras` file, or the name of
            published weights.
        target: Path of the file or folder.
        calibrate: Folder of photos to quantise the activations with, or `None`.
        fuse: Boolean, whether to fuse the model first.
        format, dtype, input_dtype, check, overwrite: As for
            `keras_mixer.export`.

    Raises:
        ValueError: As `keras_mixer.export`, or if `calibrate` has no photos.
    """
    trained = load_subject(model).trained
    network = fusing.fuse(trained.model) if fuse else trained.model
    calibration = None
    if calibrate is not None:
        calibration = _photos(calibrate, trained)
    exporting.export(
        network,
        target,
        format,
        dtype=dtype,
        input_dtype=input_dtype,
        class_names=trained.names[0] or None,
        image_options=trained.evaluation,
        calibration=calibration,
        check=check,
        overwrite=overwrite,
    )


def _photos(folder, trained):
    """Returns photos in a folder, chosen evenly from all of them."""
    files = [file for file, reason in photos_in([folder]) if reason is None]
    if not files:
        raise ValueError(
            f"`--calibrate` must be a folder of photos. Received: '{folder}'"
        )
    places = np.linspace(0, len(files) - 1, min(len(files), MOST_PHOTOS))
    return np.concatenate(
        [
            load_image(files[round(place)], trained.model, **trained.evaluation)
            for place in places
        ]
    )
