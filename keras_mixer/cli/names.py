"""The models, weights and images that the command line accepts.

They are checked here without importing Keras, which takes seconds. Some names
are copies of tables in modules that import Keras; a test compares them.
"""

import os
import pathlib

from keras_mixer.arguments import check_local_path
from keras_mixer.optional import check_installed
from keras_mixer.variants import CONSTRUCTORS
from keras_mixer.variants import patch_size
from keras_mixer.weights import catalog
from keras_mixer.weights.catalog import HUB

# The model of all commands if none is given. Its weights are in the package.
DEFAULT_MODEL = "MixerNano"

# `distributing.KINDS`
DEVICES = ("auto", "none", "mirrored", "tpu", "data", "model")

# `weights.resizing.METHODS`
RESIZE_METHODS = ("auto", "tile", "interleave", "interpolate")

# `exporting.formats.FORMATS`
FORMATS = ("saved_model", "onnx", "openvino", "litert", "torch")


def is_own(model):
    """Whether a name is that of a user's function, `"module:function"`."""
    return ":" in model


def check_model(model):
    """Raises an error if there is no model of this name."""
    if model not in CONSTRUCTORS and not is_own(model):
        raise ValueError(
            f"There is no model '{model}'. Use one of: "
            f"{', '.join(CONSTRUCTORS)}; or, to train a model of your own, "
            "module:function"
        )


def variant_name(model):
    """Returns the variant that a constructor builds, such as "mixer_b16".

    It is `None` for a model of the user.
    """
    check_model(model)
    return CONSTRUCTORS.get(model)


def tags_of(model):
    """Returns the tags of the published weights of a model, a list."""
    return [r.tag for r in catalog.list_weights(f"{variant_name(model)}.*")]


def default_weights(model):
    """Returns the tag of the weights to fine-tune a model from by default.

    Raises:
        ValueError: If the model has no default. The message lists its tags.
    """
    tag = catalog.default_tag(variant_name(model))
    if tag is None:
        tags = tags_of(model)
        raise ValueError(
            f"{model} has no default weights. Use `--weights`: "
            + (f"one of {tags}, or a file." if tags else "a file.")
        )
    return tag


def check_training(settings):
    """Checks what the settings of a training name.

    Args:
        settings: `Settings`.

    Raises:
        ValueError: If weights do not exist or a size does not fit the model.
        OSError: If the folder of images does not exist.
        ImportError: If a required package is not installed.
    """
    check_images(settings.data, settings.dataset)
    _check_weights(settings.model, settings.weights)
    _check_size(settings.model, settings.image_size)
    check_installed("tensorflow")
    if settings.dataset is not None:
        check_installed("tensorflow_datasets")


def check_images(data, dataset):
    """Checks that one source of images is given, and that it exists.

    Args:
        data: Path of a folder, or `None`.
        dataset: Name of a TFDS data set, or `None`.
    """
    if (data is None) == (dataset is None):
        raise ValueError(
            "Use either `--data FOLDER` or `--dataset NAME` (of TFDS). "
            f"Received: data={data}, dataset={dataset}"
        )
    if data is not None and not pathlib.Path(data).is_dir():
        raise NotADirectoryError(
            "`--data` must be a folder that has a folder of images for each "
            f"class. Received: '{data}', which is not a folder"
        )


def _check_weights(model, weights):
    if weights is None or weights.startswith(HUB) or os.path.isfile(weights):
        return
    check_local_path("weights", weights)
    tags = [] if is_own(model) else tags_of(model)
    if weights not in tags:
        published = f"one of {tags} (published weights), " if tags else ""
        raise ValueError(
            f"`--weights` of {model} must be {published}the path of a weights "
            "file, or 'hf://organization/name' (a repository of the Hugging "
            f"Face hub). Received: weights={weights!r}"
        )


def _check_size(model, image_size):
    if image_size is None or is_own(model):
        return
    patch = patch_size(model)
    if any(side % patch for side in image_size):
        height, width = (max(1, round(s / patch)) * patch for s in image_size)
        near = height if height == width else f"{height}x{width}"
        raise ValueError(
            "The height and width of `--image-size` must be multiples of the "
            f"patch size of {model}, {patch}. Use {near}. "
            f"Received: image_size={image_size}"
        )
