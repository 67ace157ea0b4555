"""The steps from what `weights=` says to the variables of a model, composed.

`check_source -> open_checkpoint -> load`. The first looks at the argument
alone, the second fetches and reads the file, before there is a model: what is
in it decides on the activation, the range of the pixels and the grid. The third
gives the model its weights.
"""

import json
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
from keras_mixer.weights import naming
from keras_mixer.weights import reading
from keras_mixer.weights import resizing
from keras_mixer.weights.errors import DownloadError
from keras_mixer.weights.errors import WeightsError

logger = logging.getLogger("keras_mixer")

HUB = "hf://"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class HubFile(NamedTuple):
    """A file in a repository of the Hugging Face hub."""

    repo: str
    names: tuple  # the first that is there

    def __str__(self):
        return HUB + self.repo


class Checkpoint(NamedTuple):
    """A file of weights, read, and how its model is to be used."""

    source: str | None = None  # none: there is no file
    family: str | None = None
    layout: str | None = None
    arrays: dict | None = None  # {path: array}
    grid: tuple | None = None  # (rows, columns); none: that of the model
    activation: str | None = None  # none: that of the family
    scaling: tuple | None = None  # (mean, std) of pixels; none: the family's
    checksum: str | None = None  # kind of the checksum in the file


def check_source(weights, variant):
    """What `weights=` names: a `Record`, a `HubFile`, a path, or `None`.

    Args:
        weights: The argument. This package also passes a `Checkpoint`, which is
            returned.
        variant: The variant whose tags it may be, or `None`.

    Raises:
        ValueError: If there is no such tag or file.
        TypeError: If it is neither a string nor a path.
    """
    if weights is None or isinstance(weights, Checkpoint):
        return weights
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(_expected(weights, variant))
    if isinstance(weights, str):
        record = catalog.find(variant, weights)
        if record is not None:
            return record
        if weights.startswith(HUB):
            return _check_hub(weights, variant)
    # `os.path.isfile` is also false for what cannot be a path.
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


def open_checkpoint(source, family=None, include_top=True):
    """Fetches and reads what `check_source` returned.

    Args:
        source: A `Record`, a `HubFile`, a path or `None`; or a `Checkpoint`,
            which is returned.
        family: `"mixer"`, `"resmlp"`, or `None` for either.
        include_top: Whether the head is wanted; if not, it is left out.

    Raises:
        WeightsError: If the file is damaged or holds something else.
        DownloadError: If it cannot be fetched.
    """
    if source is None:
        return Checkpoint()
    if isinstance(source, Checkpoint):
        return source
    path, activation, scaling = _locate(source)
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
    activation = activation or file.activation
    if activation is None and layout.name == "timm":
        activation = catalog.GELU_EXACT  # which timm computes, for all of them
    return Checkpoint(
        source=str(path),
        family=layout.family,
        layout=layout.name,
        arrays=arrays,
        grid=_grid(file.grid, layout, sizes["tokens"]),
        activation=activation,
        scaling=scaling or file.scaling,
        checksum=file.checksum,
    )


# The one thing of a file that may be left out.
def _is_head(path):
    return path.startswith(naming.HEAD)


def _locate(source):
    """The file of a source, its activation and its scaling."""
    if isinstance(source, pathlib.Path):
        return source, None, None
    if isinstance(source, HubFile):
        path = hub.fetch(source.repo, source.names)
        return path, None, _scaling_of_hub(source)
    return (
        fetch(source),
        source.source.activation,
        (source.source.mean, source.source.std),
    )


def fetch(record):
    """The file of a `Record`, fetched if it is not in the cache."""
    if record.packaged is not None:
        return pathlib.Path(record.packaged)
    if record.repo is None:
        return fetching.fetch(
            record.file, record.url, record.size, record.sha256
        )
    _, _, name = record.file.rpartition("/")
    return hub.fetch(record.repo, (name,))


def _scaling_of_hub(source):
    """The mean and std that timm's `config.json` of a repository gives."""
    try:
        path = hub.fetch(source.repo, ("config.json",))
    except DownloadError:
        return None
    try:
        config = dict(json.loads(path.read_text()))
        config = config.get("pretrained_cfg", config)
        scaling = tuple(
            tuple(float(value) for value in config[key])
            for key in ("mean", "std")
        )
    except (LookupError, TypeError, ValueError, RecursionError):
        return None
    if [len(values) for values in scaling] != [3, 3] or 0 in scaling[1]:
        return None
    return scaling


def _check_whole(arrays, family, path):
    """Refuses weights that do not make up one model; returns its sizes."""
    shapes = assigning.shapes(arrays)
    sizes = naming.sizes_of(shapes, family)
    assigning.check(
        naming.shapes_of(family, sizes),
        shapes,
        f"Cannot load '{path}': its weights do not make up one model. It was "
        "damaged, edited or fused, or holds more than the model.",
    )
    return sizes


def _grid(noted, layout, tokens):
    """Rows and columns of the tokens of a file, or `None`.

    A `.keras` file has it in its configuration, a `.weights.h5` file does not
    say it. The published weights are for square images, and `writing` notes any
    other grid.
    """
    side = math.isqrt(tokens)
    if layout.name == "keras":
        return noted if noted and math.prod(noted) == tokens else None
    if side**2 != tokens and not noted:
        return None
    return noted or (side, side)


def plan(checkpoint, grid, method):
    """How a checkpoint gets to the grid of a model: a `resizing.Plan`."""
    try:
        return resizing.plan(checkpoint.grid or grid, grid, method)
    except ValueError as error:
        raise ValueError(
            f"Cannot load '{checkpoint.source}' on this grid. {error}"
        ) from error


def load(checkpoint, plan, layers, channels):
    """Gives the layers of a model the weights of a checkpoint, if it has any.

    Args:
        checkpoint: A `Checkpoint`; its arrays are gone afterwards.
        plan: A `resizing.Plan`.
        layers: The layers of the model that may have weights.
        channels: Channels of the image.

    Raises:
        WeightsError: If the weights are not those of the model; no variable has
            changed then.
    """
    if checkpoint.source is None:
        return
    arrays = dict(checkpoint.arrays)
    checkpoint.arrays.clear()  # so that no array is kept beside its variable
    if resizing.adapt_channels(arrays, channels):
        logger.info(
            "%s: stem adapted from 3 channels to %d",
            checkpoint.source,
            channels,
        )
    arrays = resizing.resize(arrays, checkpoint.family, plan)
    assigning.assign(variables_of(layers), arrays, checkpoint.source)
    if plan.method is not None:
        logger.info("%s: %s", checkpoint.source, plan)


# Keras merges these into the kernel when it saves a layer.
_LORA = ("lora_kernel_a", "lora_kernel_b")


def variables_of(layers):
    """`{path: variable}` of the weights of `layers`, without seeds and LoRA.

    Paths begin at the layer, whatever name scope the model was built in.
    """
    return {
        layer.name + variable.path.removeprefix(layer.path): variable
        for layer in layers
        for variable in layer.weights
        if variable.name not in _LORA
    }
