"""The images that a command can name."""

import logging

from keras_mixer import data
from keras_mixer.commands.settings import ADDED_SETTINGS

logger = logging.getLogger("keras_mixer")


# How many of the files that were skipped; `run.json` has them all.
MOST_NAMED = 10


def load_images(settings):
    """The images that settings name: of a folder, or of TFDS.

    Args:
        settings: Dict with `data` or `dataset`, `data_dir`, `image_size` and
            `seed`; and `channels` of the images in a folder, by default 3.

    Returns:
        A `keras_mixer.data.Data`. The first files that are not used are
        named in the log.

    Raises:
        ValueError: If settings name neither or both.
    """
    if (settings["data"] is None) == (settings["dataset"] is None):
        raise ValueError(
            "Give the images: `--data FOLDER`, or `--dataset NAME` of TFDS. "
            f"Received: data={settings['data']}, dataset={settings['dataset']}"
        )
    size, seed = settings["image_size"], settings["seed"]
    if settings["data"] is not None:
        channels = settings.get("channels", ADDED_SETTINGS["channels"])
        images = data.load_folder(
            settings["data"], size, channels=channels, seed=seed
        )
    else:
        images = data.load_tfds(
            settings["dataset"],
            size,
            data_dir=settings["data_dir"],
            seed=seed,
        )
    for path, reason in images.skipped[:MOST_NAMED]:
        logger.warning("Skipped '%s': %s", path, reason)
    if len(images.skipped) > MOST_NAMED:
        logger.warning("Skipped %d files in all", len(images.skipped))
    return images
