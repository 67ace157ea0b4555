"""Loads the images that are named on the command line."""

import logging

from keras_mixer import data as datasets
from keras_mixer.cli.names import check_images

logger = logging.getLogger("keras_mixer")

# At most this many skipped files are logged. `run.json` lists all of them.
MOST_NAMED = 10


def load_images(
    data,
    dataset,
    image_size,
    *,
    data_dir=None,
    channels=3,
    held_out=0.2,
    seed=0,
    index=None,
    found=None,
):
    """Loads the images of a folder or of a TFDS data set.

    Args:
        data: Path of a folder, or `None`.
        dataset: Name of a TFDS data set, or `None`.
        image_size: Positive integer, or height and width.
        data_dir: Folder in which TFDS keeps its data sets, or `None`.
        channels: Channels of the images of a folder.
        held_out: Fraction of the images to hold out, or `None` for none.
        seed: Integer, the seed of the choice of held-out images.
        index: A `keras_mixer.data.ImageIndex` of the folder, or `None`.
        found: What `finding.find` returned for the folder, or `None`.

    Returns:
        A `keras_mixer.data.Data`. The first skipped files are logged.

    Raises:
        ValueError: If both or neither of `data` and `dataset` are given.
        OSError: If the folder does not exist.
    """
    check_images(data, dataset)
    if data is not None:
        images = datasets.load_folder(
            found or data,
            image_size,
            channels=channels,
            held_out=held_out,
            seed=seed,
            index=index,
        )
    else:
        images = datasets.load_tfds(
            dataset,
            image_size,
            data_dir=data_dir,
            held_out=held_out,
            seed=seed,
        )
    for path, reason in images.skipped[:MOST_NAMED]:
        logger.warning("Skipped '%s': %s", path, reason)
    if len(images.skipped) > MOST_NAMED:
        logger.warning("Skipped %d files in total", len(images.skipped))
    return images
