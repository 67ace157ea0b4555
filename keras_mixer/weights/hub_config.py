"""Reads `config.json` of a repository on the Hugging Face hub.

The file is that of timm, or that of Keras: `model.save("hf://...")` writes
`config.json`, `metadata.json` and `model.weights.h5`, the members of a `.keras`
file. The weights of Keras are read with the configuration of Keras. The file is
only read as JSON, so code from the repository cannot run.
"""

import json

from keras_mixer.weights import hub
from keras_mixer.weights import keras_config
from keras_mixer.weights import keras_files
from keras_mixer.weights.errors import DownloadError
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import parse_scaling
from keras_mixer.weights.keras_config import ModelConfig

FILE = keras_config.ARCHIVED


def read(repo, weights):
    """Returns what `config.json` says about the weights of a repository.

    Args:
        repo: String, `"organisation/name"`.
        weights: Name of the weights file.

    Returns:
        A `keras_config.ModelConfig`. It is empty if there is no such file, or
        if its content is neither of timm nor of Keras.

    Raises:
        WeightsError: If the file is larger than `keras_config.MAX_BYTES`.
    """
    try:
        path = hub.fetch(repo, (FILE,))
    except DownloadError:
        return ModelConfig()
    size = path.stat().st_size
    if size > keras_config.MAX_BYTES:
        raise WeightsError(
            f"Cannot load '{path}': it has {size} bytes. At most "
            f"{keras_config.MAX_BYTES} bytes are allowed"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        return ModelConfig()
    if weights == keras_files.ARCHIVED:
        return keras_config.describe(config)
    return ModelConfig(scaling=_scaling_of_timm(config))


def _scaling_of_timm(config):
    try:
        config = config.get("pretrained_cfg", config)
        return parse_scaling(config["mean"], config["std"])
    except (AttributeError, LookupError, TypeError):
        return None
