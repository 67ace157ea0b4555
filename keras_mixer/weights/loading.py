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

from keras_mixer.arguments import check_local_path
from keras_mixer.weights import assigning
from keras_mixer.weights import catalog
from keras_mixer.weights import downloads
from keras_mixer.weights import hub
from keras_mixer.weights import keras_files
from keras_mixer.weights import naming
from keras_mixer.weights import reading
from keras_mixer.weights import resizing
from keras_mixer.weights.catalog import HUB
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import ModelConfig

logger = logging.getLogger("keras_mixer")

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
    tiles: int = 1  # how many times resizing widened the MLP over tokens
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
    check_local_path("weights", weights)
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
        f"initialization), {published}'hf://organization/name' (a repository "
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
        layout, arrays = _rename(file.arrays, family, path)
        if not include_top:
            arrays = {p: a for p, a in arrays.items() if not _is_head(p)}
        sizes = _check_whole(arrays, layout)
        config = _complete(file.config, known, layout, sizes)
    except WeightsError as error:
        raise WeightsError(f"Cannot load '{path}': {error}") from error
    return WeightsFile(
        source=str(path),
        family=layout.family,
        layout=layout.name,
        arrays=arrays,
        tokens_mlp=sizes.get("tokens_mlp"),
        checksum=file.checksum,
        **config._asdict(),
    )


def _rename(arrays, family, path):
    """Returns the layout of a file and `{path: array}`."""
    named, prefix = naming.remove_prefix(arrays)
    layout = naming.layout_of(named)
    if family not in (None, layout.family):
        raise WeightsError(
            f"expected the weights of a model of the family '{family}'. "
            f"Received: weights of the family '{layout.family}'"
        )
    renamed = naming.rename(named, layout)
    if prefix:
        logger.info("%s: prefix '%s' removed from the names", path, prefix)
    return layout, renamed


# Only the head can be left out.
def _is_head(path):
    return path.startswith(naming.HEAD)


def _locate(source):
    """Returns the file of a source, and what is known without the file."""
    if isinstance(source, pathlib.Path):
        return source, ModelConfig()
    if isinstance(source, HubFile):
        hub.fetch_config(source.repo)
        path = hub.fetch(source.repo, source.names)
        return path, hub.read_config(source.repo, path)
    scaling = (source.source.mean, source.source.std)
    return fetch_record(source), ModelConfig(
        None, source.source.activation, scaling
    )


def fetch_record(record):
    """Returns the file of a `Record`; downloads it if it is not cached."""
    if record.packaged is not None:
        return pathlib.Path(record.packaged)
    if record.repo is None:
        return downloads.download(
            record.file, record.url, record.size, record.sha256
        )
    _, _, name = record.file.rpartition("/")
    return hub.fetch(record.repo, (name,))


def _check_whole(arrays, layout):
    """Checks that the weights form one complete model; returns its sizes."""
    shapes = assigning.shapes(arrays)
    sizes = naming.sizes_of(shapes, layout.family)
    table = naming.axes_of(layout.family)
    unknown = [path for path in arrays if not naming.axes(path, table)]
    if unknown:
        raise WeightsError(naming.another_model(unknown, layout))
    assigning.check(
        naming.shapes_of(layout.family, sizes),
        shapes,
        "its weights do not form one complete model: it is a file of another "
        "model, or was edited or fused.",
    )
    return sizes


def _complete(noted, known, layout, sizes):
    """Returns the `ModelConfig` of weights.

    The published weights are for square images and, those of timm, for exact
    GELU.

    Args:
        noted: The `ModelConfig` in the file.
        known: What is known without the file, a `ModelConfig`.
        layout: The `Layout` of the file.
        sizes: The sizes of the model.
    """
    config = ModelConfig(
        noted.grid or known.grid,
        known.activation or noted.activation,
        known.scaling or noted.scaling,
        max(noted.tiles, known.tiles),
    )
    if config.activation is None and layout.name == "timm":
        config = config._replace(activation=catalog.GELU_EXACT)
    if sizes.get("tokens_mlp", config.tiles) % config.tiles:
        raise WeightsError(
            f"it says that the MLP over tokens, {sizes['tokens_mlp']} wide, "
            f"was widened {config.tiles} times"
        )
    tokens, grid = sizes["tokens"], config.grid
    if grid is not None and math.prod(grid) != tokens:
        if layout.name != "keras":
            raise WeightsError(
                f"it says that its grid is {grid[0]} x {grid[1]}, but has "
                f"weights for {tokens} tokens"
            )
        grid = None  # a model with other layers before its stem
    side = math.isqrt(tokens)
    if grid is None and layout.name != "keras" and side**2 == tokens:
        grid = (side, side)
    return config._replace(grid=grid)


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

    It may be wider only if the file shows that its model was resized by "tile"
    or "interleave": by its note, its configuration, or its weights.

    Args:
        file: A `WeightsFile`.
        tokens_mlp: The width in the model to build, or `None`.

    Returns:
        A positive integer. It is 1 if the file may not be wider.
    """
    if not tokens_mlp or not file.tokens_mlp or file.tokens_mlp % tokens_mlp:
        return 1
    times = file.tokens_mlp // tokens_mlp
    if times == 1 or (
        file.tiles % times and not resizing.is_tiled(file.arrays, times)
    ):
        return 1
    logger.info(
        "%s: the MLP over tokens is %d times as wide, since the model in the "
        "file was resized",
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
