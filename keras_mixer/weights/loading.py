"""The steps from the argument `weights=` to the variables of a model.

`check_source -> open_weights -> load`. `check_source` checks only the
argument. `open_weights` fetches and reads the file. This happens before the
model is built, because the file determines the activation, the pixel range and
the grid. `load` assigns the weights to the model.
"""

import logging
import math
import os
import pathlib
import re
from typing import NamedTuple

from keras_mixer.weights import assigning
from keras_mixer.weights import catalog
from keras_mixer.weights import fetching
from keras_mixer.weights import hub
from keras_mixer.weights import hub_config
from keras_mixer.weights import keras_files
from keras_mixer.weights import naming
from keras_mixer.weights import reading
from keras_mixer.weights import resizing
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.keras_config import ModelConfig

logger = logging.getLogger("keras_mixer")

HUB = "hf://"
# Of `keras_mixer.push` and timm, then of Keras's `model.save("hf://...")`.
HUB_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.keras",
    keras_files.ARCHIVED,
)


class HubFile(NamedTuple):
    """A file in a repository of the Hugging Face hub."""

    repo: str
    names: tuple  # the first one that exists is used

    def __str__(self):
        return HUB + self.repo


class WeightsFile(NamedTuple):
    """The content of a weights file, and the settings its model needs."""

    source: str | None = None  # None: there is no file
    family: str | None = None
    layout: str | None = None
    arrays: dict | None = None  # {path: array}
    grid: tuple | None = None  # (rows, columns); None: that of the model
    tokens_mlp: int | None = None  # width of the MLP over tokens
    activation: str | None = None  # None: that of the family
    scaling: tuple | None = None  # (mean, std) of pixels; None: the family's
    checksum: str | None = None  # kind of checksum in the file


def check_source(weights, variant):
    """Returns the `Record`, `HubFile` or path that `weights=` names, or `None`.

    Args:
        weights: The argument. A `WeightsFile`, which only this package passes,
            is returned unchanged.
        variant: The variant whose tags are accepted, or `None`.

    Raises:
        ValueError: If the tag or file does not exist.
        TypeError: If `weights` is neither a string nor a path.
    """
    if weights is None or isinstance(weights, WeightsFile):
        return weights
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(_expected(weights, variant))
    if isinstance(weights, str):
        record = catalog.find(variant, weights)
        if record is not None:
            return record
        if weights.startswith(HUB):
            return _check_hub(weights, variant)
    # `os.path.isfile` also returns `False` for an invalid path.
    if os.path.isfile(weights):
        return pathlib.Path(weights)
    if reading.suffix_of_name(weights) is None:
        raise ValueError(_expected(weights, variant))
    raise ValueError(f"{_expected(weights, variant)}, which is not a file")


def _check_hub(weights, variant):
    match = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:/(.+))?", weights)
    repo, file = match.groups() if match else (None, None)
    if repo is None or (file and reading.suffix_of_name(file) is None):
        raise ValueError(_expected(weights, variant))
    names = (file,) if file else HUB_FILES
    return catalog.find_file(f"{repo}/{names[0]}") or HubFile(repo, names)


def _expected(weights, variant):
    records = catalog.list_weights(f"{variant}.*")
    tags = ", ".join(repr(record.tag) for record in records)
    published = f"{tags} (published weights), " if tags else ""
    return (
        "The `weights` argument should be either `None` (random "
        f"initialization), {published}'hf://organisation/name' (a repository "
        "of the Hugging Face hub), or the path to the weights file to be "
        f"loaded ({', '.join(reading.SUFFIXES)}). "
        f"Received: weights={weights!r}"
    )


def open_weights(source, family=None, include_top=True):
    """Fetches and reads the file that `check_source` returned.

    Args:
        source: A `Record`, a `HubFile`, a path or `None`. A `WeightsFile` is
            returned unchanged.
        family: `"mixer"`, `"resmlp"`, or `None` for either.
        include_top: Whether to load the weights of the head.

    Raises:
        WeightsError: If the file is damaged or contains something else.
        DownloadError: If the file cannot be fetched.
    """
    if source is None:
        return WeightsFile()
    if isinstance(source, WeightsFile):
        return source
    path, known = _locate(source)
    file = reading.read(path)
    try:
        named, prefix = naming.remove_prefix(file.arrays)
        layout = naming.layout_of(named)
        if family not in (None, layout.family):
            raise WeightsError(
                f"expected the weights of a model of the family '{family}'. "
                f"Received: weights of the family '{layout.family}'"
            )
        arrays = naming.rename(named, layout)
    except WeightsError as error:
        raise WeightsError(f"Cannot load '{path}': {error}") from error
    if prefix:
        logger.info("%s: prefix '%s' removed from the names", path, prefix)
    if not include_top:
        arrays = {p: a for p, a in arrays.items() if not _is_head(p)}
    sizes = _check_whole(arrays, layout.family, path)
    activation = known.activation or file.activation
    if activation is None and layout.name == "timm":
        activation = catalog.GELU_EXACT  # timm uses it for all models
    return WeightsFile(
        source=str(path),
        family=layout.family,
        layout=layout.name,
        arrays=arrays,
        grid=_grid(file.grid or known.grid, layout, sizes["tokens"]),
        tokens_mlp=sizes.get("tokens_mlp"),
        activation=activation,
        scaling=known.scaling or file.scaling,
        checksum=file.checksum,
    )


# Only the head can be left out.
def _is_head(path):
    return path.startswith(naming.HEAD)


def _locate(source):
    """Returns the file of a source, and what is known without the file."""
    if isinstance(source, pathlib.Path):
        return source, ModelConfig()
    if isinstance(source, HubFile):
        path = hub.fetch(source.repo, source.names)
        return path, hub_config.read(source.repo, path.name)
    scaling = (source.source.mean, source.source.std)
    return fetch(source), ModelConfig(None, source.source.activation, scaling)


def fetch(record):
    """Returns the file of a `Record`; downloads it if it is not cached."""
    if record.packaged is not None:
        return pathlib.Path(record.packaged)
    if record.repo is None:
        return fetching.fetch(
            record.file, record.url, record.size, record.sha256
        )
    _, _, name = record.file.rpartition("/")
    return hub.fetch(record.repo, (name,))


def _check_whole(arrays, family, path):
    """Checks that the weights form one complete model; returns its sizes."""
    shapes = assigning.shapes(arrays)
    sizes = naming.sizes_of(shapes, family)
    assigning.check(
        naming.shapes_of(family, sizes),
        shapes,
        f"Cannot load '{path}': its weights do not form one complete model. It "
        "was damaged, edited or fused, or contains more than the model.",
    )
    return sizes


def _grid(noted, layout, tokens):
    """Returns the rows and columns of the tokens of a file, or `None`.

    A `.keras` file has the grid in its configuration. A `.weights.h5` file does
    not contain it. The published weights are for square images. `writing` adds
    a note to a file if the grid is not square.
    """
    side = math.isqrt(tokens)
    if layout.name == "keras":
        return noted if noted and math.prod(noted) == tokens else None
    if side**2 != tokens and not noted:
        return None
    return noted or (side, side)


def plan(file, grid, method):
    """Returns the `ResizePlan` from the grid of a `WeightsFile` to `grid`."""
    try:
        return resizing.plan(file.grid or grid, grid, method)
    except ValueError as error:
        raise ValueError(
            f"Cannot load '{file.source}' for this grid. {error}"
        ) from error


def widening(file, tokens_mlp):
    """Returns how many times wider the MLP over tokens is in a file.

    It is wider if the file has a model of these sizes that was resized by
    "tile" or "interleave".

    Args:
        file: A `WeightsFile`.
        tokens_mlp: The width in the model to build, or `None`.

    Returns:
        A positive integer. It is 1 if the widths cannot be compared, or if the
        one is no multiple of the other.
    """
    there = file.tokens_mlp
    if not tokens_mlp or not there or there % tokens_mlp:
        return 1
    times = there // tokens_mlp
    if times > 1:
        logger.info(
            "%s: the MLP over tokens is %d times as wide, since the model in "
            "the file was resized",
            file.source,
            times,
        )
    return times


def load(file, plan, layers, channels):
    """Assigns the weights of a file, if any, to the layers of a model.

    Args:
        file: A `WeightsFile`. Its arrays are removed to save memory.
        plan: A `resizing.ResizePlan`.
        layers: The layers of the model that can have weights.
        channels: Number of channels of the image.

    Raises:
        WeightsError: If the weights do not match the model. In this case no
            variable has changed.
    """
    if file.source is None:
        return
    arrays = dict(file.arrays)
    file.arrays.clear()  # `arrays` then holds the only references
    if resizing.adapt_channels(arrays, channels):
        logger.info(
            "%s: stem adapted from 3 channels to %d",
            file.source,
            channels,
        )
    arrays = resizing.resize(arrays, file.family, plan)
    assigning.assign(variables_of(layers), arrays, file.source)
    if plan.method is not None:
        logger.info("%s: %s", file.source, plan)


# Keras merges these into the kernel when it saves a layer.
_LORA = ("lora_kernel_a", "lora_kernel_b")


def variables_of(layers):
    """Returns `{path: variable}` of the weights, without seeds and LoRA.

    Paths start with the name of the layer. They do not depend on the name scope
    in which the model was built.
    """
    return {
        layer.name + variable.path.removeprefix(layer.path): variable
        for layer in layers
        for variable in layer.weights
        if variable.name not in _LORA
    }
