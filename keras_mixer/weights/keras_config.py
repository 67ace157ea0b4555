"""Reads how to use the weights from the configuration in a `.keras` file.

The weights alone do not show with which grid of tokens, activation and pixel
range they were trained. The configuration is read only as JSON. Keras objects
are not created from it, so code from the file cannot run.
"""

import json
import logging

import numpy as np

from keras_mixer.weights import catalog
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import ModelConfig
from keras_mixer.weights.formats import parse_scaling
from keras_mixer.weights.formats import read_member

logger = logging.getLogger("keras_mixer")

ARCHIVED = "config.json"

# The configuration of the largest model in this package has 350 kB.
MAX_BYTES = 2**24

_SCALING = ("Rescaling", "Normalization", "PixelNormalization")

# The scaling of a model that takes the values as they are.
UNSCALED = (0.0,) * 3, (float(f"{1 / 255:.12g}"),) * 3

_ACTIVATIONS = {
    "keras_mixer>gelu_exact": catalog.GELU_EXACT,
    "keras_mixer>gelu_tanh": catalog.GELU_TANH,
}


def read(archive):
    """Reads the configuration in an archive.

    Args:
        archive: A `zipfile.ZipFile`, opened by `open_archive`.

    Returns:
        A `ModelConfig`.

    Raises:
        WeightsError: If the configuration is missing or is larger than
            `MAX_BYTES`, or a layer has an activation of its own.
    """
    if ARCHIVED not in archive.namelist():
        raise WeightsError(f"'{ARCHIVED}' is missing")
    info = archive.getinfo(ARCHIVED)
    if info.file_size > MAX_BYTES:
        raise WeightsError(
            f"its configuration has {info.file_size} bytes. At most "
            f"{MAX_BYTES} bytes are allowed"
        )
    config = json.loads(read_member(archive, info))
    if names := changed(config):
        raise WeightsError(
            "its layers have activations or strides that a new model does not "
            f"have: {names}. Use `keras.saving.load_model`"
        )
    return describe(config)


def changed(config):
    """Returns the names of layers that compute what `ModelConfig` cannot say.

    These are activations inside blocks that are not those of the MLPs, and a
    stem that is not one product for each patch.

    Args:
        config: The content of `config.json`, of any type.
    """
    layers = _layers(config)
    stem = layers.pop("stem", {})
    # Keras adds a number of the object to the activations of all but one block.
    usual = activation_name(layers.get("block_0", {}).get("activation"))
    names = [
        name
        for name, layer in layers.items()
        if name.startswith("block_")
        and (
            activation_name(layer.get("activation")) != usual
            or _has_activation(layer.get("sublayers"))
        )
    ]
    is_plain = (
        stem.get("activation") in (None, "linear")
        and stem.get("strides") == stem.get("kernel_size")
        and stem.get("dilation_rate") in (None, (1, 1), [1, 1])
        and stem.get("groups") in (None, 1)
    )
    return names if is_plain else ["stem", *names]


def _has_activation(options):
    return isinstance(options, dict) and (
        "activation" in options or any(map(_has_activation, options.values()))
    )


def describe(config):
    """Returns the `ModelConfig` of a model, from its configuration.

    Args:
        config: The content of `config.json`, of any type.
    """
    return without_scaling(config)._replace(scaling=_scaling(config))


def without_scaling(config):
    """Returns the `ModelConfig` without the scaling; see `describe`."""
    layers = _layers(config)
    block = layers.get("block_0", {})
    return ModelConfig(
        _grid(layers),
        activation_name(block.get("activation")),
        tiles=_tiles(block.get("tiles")),
    )


def _layers(config):
    """Returns `{name: configuration}` of a functional model's layers."""
    return {name: each["config"] for name, each in _nodes(config).items()}


def _nodes(config):
    """Returns `{name: configuration and place in the graph}` of the layers."""
    try:
        layers = config["config"]["layers"]
        return {layer["config"]["name"]: layer for layer in layers}
    except (LookupError, TypeError):
        return {}


def _grid(layers):
    images = [c for c in layers.values() if "batch_shape" in c]
    try:
        (image,) = images
        # A model for `channels_first` transposes its images.
        is_channels_first = any(
            c.get("dims") in ((2, 3, 1), [2, 3, 1]) for c in layers.values()
        )
        _, *shape = image["batch_shape"]
        sides = shape[1:] if is_channels_first else shape[:2]
        patch = layers["stem"]["kernel_size"]
        return tuple(
            int(side) // int(size)
            for side, size in zip(sides, patch, strict=True)
        )
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return None


def activation_name(serialized):
    """Returns the name of an activation for `ModelConfig`, or `None`.

    A function that is neither Keras's nor of this package has a name that
    Keras does not know. A model of such weights needs `activation=`.

    Args:
        serialized: What `keras.activations.serialize` returns, or any value
            from a file.
    """
    if isinstance(serialized, dict):  # a function or layer not from Keras
        name = serialized.get("config")
        if not isinstance(name, str):
            name = serialized.get("class_name")
        serialized = _ACTIVATIONS.get(name, name)
    return serialized if isinstance(serialized, str) else None


def _tiles(value):
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and value > 0 else 1


def _scaling(config):
    """Returns what the layers in front of the stem compute, or `None`.

    Their classes tell it, not their names.
    """
    layers, name, pairs, unknown = _nodes(config), "stem", [], []
    if name not in layers:
        return None
    try:
        for _ in layers:  # ends even if the graph has a loop
            if not (calls := layers[name]["inbound_nodes"]):
                break
            ((argument,),) = (call["args"] for call in calls)
            name = argument["config"]["keras_history"][0]
            kind = layers[name]["class_name"]
            if kind in _SCALING:
                pairs.append(_scale_and_offset(layers[name]["config"]))
            elif kind not in ("InputLayer", "Permute"):
                unknown.append(name)
    except (LookupError, TypeError, ValueError):
        unknown.append(name)
    return scaling_of(pairs, unknown)


def _scale_and_offset(config):
    """Returns what a layer of a class in `_SCALING` computes."""
    if "scale" in config:
        pair = config["scale"], config["offset"]
    else:
        mean, std = _array(config["mean"]), np.sqrt(_array(config["variance"]))
        pair = (std, mean) if config.get("invert") else (1 / std, -mean / std)
    return [np.broadcast_to(_array(value), 3) for value in pair]


def _array(value):
    if isinstance(value, dict):  # of Keras, for an array of NumPy
        value = value["config"]["value"]
    if value is None:  # from `adapt`
        raise ValueError
    return np.float64(value)


def scaling_of(pairs, unknown):
    """Returns mean and std of the pixels for a `ModelConfig`, or `None`.

    Args:
        pairs: `(scale, offset)` of each layer that scales the pixels, the last
            layer first.
        unknown: The names of other layers in front of the stem.
    """
    if unknown and not pairs:
        logger.warning(
            "The file does not say what the layers in front of the stem do: "
            "%s. Load it with `include_preprocessing=False`, and add them.",
            unknown,
        )
        return None
    scale, offset = np.ones(3), np.zeros(3)
    for factor, shift in pairs:
        scale, offset = scale * factor, scale * shift + offset
    with np.errstate(divide="ignore", invalid="ignore"):
        std = 1 / (255 * scale)
        values = -offset * std, std
    # Removes rounding errors, so that a copy of a copy is equal.
    return parse_scaling(*([float(f"{x:.12g}") for x in v] for v in values))
