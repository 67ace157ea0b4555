"""The commands `convert` and `verify`, for weight files."""

import hashlib
import pathlib

import keras

from keras_mixer import atomic
from keras_mixer.arguments import check_local_path
from keras_mixer.exporting import checks
from keras_mixer.models.constructors import FAMILIES
from keras_mixer.weights import assigning
from keras_mixer.weights import catalog
from keras_mixer.weights import keras_config
from keras_mixer.weights import loading
from keras_mixer.weights import naming
from keras_mixer.weights import writing
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import ModelConfig

KERAS_SUFFIXES = (".weights.h5", ".keras")


def convert(source, target, overwrite=False):
    """Converts a weight file to another format.

    Args:
        source: Path of a weight file, of any format that `weights=` accepts.
        target: Path of the file to write: `.npz` (Flax), `.safetensors` (timm),
            `.weights.h5` or `.keras`.
        overwrite: Boolean, whether to replace an existing file.

    Returns:
        `(rows, columns)`, the grid of tokens that was assumed.

    Raises:
        WeightsError: If the source is damaged, or its grid is unknown.
        ValueError: If the target's name has another ending.
        FileExistsError: If `target` exists and may not be replaced.
        OSError: If a file cannot be read or written.
    """
    check_local_path("source", source)
    source = pathlib.Path(source)
    target = writing.check_file("target", target)
    checks.check_target(target, overwrite, pathlib.Path.is_file, "a file")
    file = loading.open_weights(_check_file(source))
    sizes = _sizes(file)
    grid = file.grid or writing.square(sizes["tokens"])
    if file.grid is None and grid[0] != grid[1]:
        raise WeightsError(
            f"Cannot convert '{source}': it has weights for "
            f"{sizes['tokens']} tokens, which is not a square number, and the "
            "file does not contain the numbers of rows and columns. Load it "
            "into its model, and pass the model to "
            "`keras_mixer.export_weights`."
        )
    if target.name.endswith(KERAS_SUFFIXES):
        _save(_model(file, sizes, grid), target)
    else:
        path, layout = writing.check_target(target, file.family)
        activation = file.activation or _usual_activation(file.family)
        config = ModelConfig(grid, activation, file.scaling, file.tiles)
        writing.write(path, file.arrays, layout, config)
    return grid


def _usual_activation(family):
    """Returns the name of the activation that models of a family have."""
    activation = FAMILIES[family][0].activation
    serialized = keras.activations.serialize(keras.activations.get(activation))
    return keras_config.activation_name(serialized)


def _check_file(path):
    source = loading.check_source(path, None)
    if source is None:
        raise TypeError("`source` must be the path of a file. Received: None")
    return source


def _sizes(file):
    shapes = assigning.shapes(file.arrays)
    return naming.sizes_of(shapes, file.family)


def _model(file, sizes, grid):
    family, constructor = FAMILIES[file.family]
    # The initial LayerScale is not in the file; the weights replace it.
    given = {name: sizes.get(name, 1.0) for name in family.sizes}
    if "tokens_mlp" in given:
        given["tokens_mlp"] //= file.tiles  # the constructor widens it again
    patch = sizes["patch"]
    patch = patch if isinstance(patch, tuple) else (patch, patch)
    height, width = (n * size for n, size in zip(grid, patch, strict=True))
    return constructor(
        *given.values(),
        include_top="classes" in sizes,
        classes=sizes.get("classes", 1),
        weights=file,
        input_shape=(height, width, sizes["in_channels"]),
        name=family.variant_of(given) or family.name,
    )


def _save(model, target):
    with atomic.replacing(target) as part:
        if target.name.endswith(".keras"):
            model.save(part)
        else:
            model.save_weights(part)


def inspect_file(path):
    """Reads a whole weight file, and describes it.

    Args:
        path: Path of the file.

    Returns:
        A dict `{property: text}`, in the order to print.

    Raises:
        WeightsError: If the file is damaged, or does not have the weights of
            exactly one model.
        ValueError: If the file does not exist.
    """
    path = _check_file(path)
    file = loading.open_weights(path)
    sizes = _sizes(file)
    arrays = file.arrays.values()
    family, _ = FAMILIES[file.family]
    variant = family.variant_of(sizes)
    rows, columns = file.grid or ("?", "?")
    return {
        "file": str(path),
        "bytes": f"{path.stat().st_size:,}",
        "SHA-256": _sha256(path),
        "layout": file.layout,
        "family": family.name,
        "variant": variant or "not a published one",
        "sizes": ", ".join(
            f"{name} {sizes[name]}" for name in family.sizes if name in sizes
        ),
        "tokens": f"{sizes['tokens']} ({rows} x {columns})",
        "channels of the image": str(sizes["in_channels"]),
        "classes": str(sizes.get("classes", "no head")),
        "tensors": f"{len(arrays)}, none missing, none unknown",
        "parameters": f"{sum(array.size for array in arrays):,}",
        "dtype": ", ".join(sorted({str(array.dtype) for array in arrays})),
        "checksum in the file": file.checksum or "none",
        "published as": _published(path, variant, sizes),
    }


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(path, variant, sizes):
    """Returns the names of published files with the same size."""
    names = [
        record.name
        for record in catalog.RECORDS
        if (record.variant, record.classes) == (variant, sizes.get("classes"))
        and record.size == path.stat().st_size
    ]
    return f"has the size of {' and of '.join(names)}" if names else "unknown"
