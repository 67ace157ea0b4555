"""The images that a command can name."""

import logging

from keras_mixer import data as datasets

logger = logging.getLogger("keras_mixer")

# How many of the files that were skipped the log names; `run.json` has them
# all.
MOST_NAMED = 10


def load_images(
    data, dataset, image_size, *, data_dir=None, channels=3, seed=0, index=None
):
    """The images of a folder, or of a data set of TFDS.

    Args:
        data: Path of a folder, or `None`.
        dataset: Name of a data set of TFDS, or `None`.
        image_size: Positive integer, or height and width.
        data_dir: Folder in which TFDS keeps its data sets, or `None`.
        channels: Channels of the images of a folder.
        seed: Integer, of the choice of what is held out.
        index: A `keras_mixer.data.ImageIndex` of the folder, or `None`.

    Returns:
        A `keras_mixer.data.Data`. The first files that are not used are named
        in the log.

    Raises:
        ValueError: If both `data` and `dataset` are given, or none.
    """
    if (data is None) == (dataset is None):
        raise ValueError(
            "Give the images: `--data FOLDER`, or `--dataset NAME` of TFDS. "
            f"Received: data={data}, dataset={dataset}"
        )
    if data is not None:
        images = datasets.load_folder(
            data, image_size, channels=channels, seed=seed, index=index
        )
    else:
        images = datasets.load_tfds(
            dataset, image_size, data_dir=data_dir, seed=seed
        )
    for path, reason in images.skipped[:MOST_NAMED]:
        logger.warning("Skipped '%s': %s", path, reason)
    if len(images.skipped) > MOST_NAMED:
        logger.warning("Skipped %d files in all", len(images.skipped))
    return images
