"""Reads how to use the weights from the configuration in a `.keras` file.

The weights alone do not show with which grid of tokens, activation and pixel
range they were trained. The configuration is read only as JSON. Keras objects
are not created from it, so code from the file cannot run.
"""

import json
import math
from typing import NamedTuple

from keras_mixer.weights import archives
from keras_mixer.weights import catalog
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import parse_scaling

ARCHIVED = "config.json"

# The configuration of the largest model in this package has 350 kB.
MAX_BYTES = 2**24

_ACTIVATIONS = {
    "keras_mixer>gelu_exact": catalog.GELU_EXACT,
    "keras_mixer>gelu_tanh": catalog.GELU_TANH,
}


class ModelConfig(NamedTuple):
    """How to use the weights; `None` where the file does not specify it."""

    grid: tuple | None = None  # (rows, columns) of the tokens
    activation: str | None = None
    scaling: tuple | None = None  # (mean, std) of pixels in [0, 1]


def read(archive):
    """Reads the configuration in an archive.

    Args:
        archive: A `zipfile.ZipFile`, opened by `archives.open_archive`.

    Returns:
        A `ModelConfig`.

    Raises:
        WeightsError: If the configuration is larger than `MAX_BYTES`.
    """
    if ARCHIVED not in archive.namelist():
        return ModelConfig()
    info = archive.getinfo(ARCHIVED)
    if info.file_size > MAX_BYTES:
        raise WeightsError(
            f"its configuration has {info.file_size} bytes. At most "
            f"{MAX_BYTES} bytes are allowed"
        )
    return describe(json.loads(archives.read(archive, info)))


def describe(config):
    """Returns the `ModelConfig` of a model, from its configuration.

    Args:
        config: The content of `config.json`, of any type.
    """
    layers = _layers(config)
    return ModelConfig(_grid(layers), _activation(layers), _scaling(layers))


def _layers(config):
    """Returns `{name: configuration}` of a functional model's layers."""
    try:
        layers = config["config"]["layers"]
        return {layer["config"]["name"]: layer["config"] for layer in layers}
    except (LookupError, TypeError):
        return {}


def _grid(layers):
    images = [c for c in layers.values() if "batch_shape" in c]
    try:
        (image,) = images
        # A model for `channels_first` transposes its images.
        is_channels_first = "channels_last" in layers
        _, *shape = image["batch_shape"]
        sides = shape[1:] if is_channels_first else shape[:2]
        patch = layers["stem"]["kernel_size"]
        return tuple(
            int(side) // int(size)
            for side, size in zip(sides, patch, strict=True)
        )
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return None


def _activation(layers):
    return activation_name(layers.get("block_0", {}).get("activation"))


def activation_name(serialized):
    """Returns the name of an activation for `ModelConfig`, or `None`.

    Args:
        serialized: What `keras.activations.serialize` returns, or any value
            from a file.
    """
    if isinstance(serialized, dict):  # a function not from Keras
        name = serialized.get("config")
        return _ACTIVATIONS.get(name) if isinstance(name, str) else None
    return serialized if isinstance(serialized, str) else None


def _scaling(layers):
    """Returns mean and std per channel of the layer that scales pixels."""
    config = layers.get("preprocessing", {})
    try:
        if "scale" in config:
            std = 1 / (255 * config["scale"])
            mean, std = [-config["offset"] * std] * 3, [std] * 3
        else:
            mean = [value / 255 for value in config["mean"]]
            std = [math.sqrt(value) / 255 for value in config["variance"]]
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return None
    # Removes rounding errors, so that a copy of a copy is equal.
    rounded = ([float(f"{value:.12g}") for value in v] for v in (mean, std))
    return parse_scaling(*rounded)
