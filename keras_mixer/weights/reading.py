"""Files of weights to `{name: array}`.

Keras numbers the layers of a file by their class (`mixer_block_3`) and the
variables of a layer by their order, and `keras.Model.load_weights` goes by
that: a deeper model's file then fills a shallower model without a word. The
names of the layers are in the file too, as attributes, so they are read
instead, and the next steps can tell exactly what is missing and what is too
much.

A file is refused unless all its data lies in it, plainly: a link out of the
file, or an array that declares more bytes than it stores, is no weights file
that Keras has written.
"""

import contextlib
import io
import os
import pathlib
import zipfile

import numpy as np

SUFFIXES = (".weights.h5", ".keras")
ARCHIVED = "model.weights.h5"  # the weights within a `.keras` file

# Layers of a model, of a block, of an MLP, and their variables: a file that
# nests deeper is no file of ours, or has a link that leads back.
MAX_DEPTH = 6


class _RefusedError(Exception):
    """What is wrong with a file that h5py could read."""


def check_source(weights):
    """Returns `weights` as a path, or `None`; says what else it cannot be."""
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(_expected(weights))
    path = pathlib.Path(weights)
    if not path.name.endswith(SUFFIXES):
        raise ValueError(_expected(weights))
    if not path.is_file():
        raise ValueError(f"{_expected(weights)}, which is not a file")
    return path


def _expected(weights):
    return (
        "The `weights` argument should be either `None` (random "
        "initialization) or the path to the weights file to be loaded, saved "
        "by `model.save_weights` (`.weights.h5`) or `model.save` (`.keras`). "
        f"Received: weights={weights!r}"
    )


def read(path):
    """Reads a `.weights.h5` or `.keras` file that Keras has written.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        `{name: array}`, where a name is the names of the layers that lead to
        the variable, and its number in its layer: `block_0/token_norm/0`.

    Raises:
        ValueError: If the file is none of the two, is damaged, keeps data
            elsewhere, or holds a quantised model or one within another.
        OSError: If the file may not be opened.
    """
    import h5py

    try:
        with _open(path) as file, h5py.File(file, "r") as h5:
            arrays = {}
            for layer in _groups(_child(h5, "layers")):
                _read_layer(layer, (), arrays)
            return arrays
    except _RefusedError as error:
        raise ValueError(f"Cannot load '{path}': {error}") from error
    except (MemoryError, PermissionError):
        raise
    # h5py and zipfile raise nearly anything on broken files.
    except Exception as error:
        raise ValueError(
            f"Cannot load '{path}': expected a file that Keras 3 has written, "
            f"whole and unchanged. Received: {type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def _open(path):
    if path.name.endswith(".weights.h5"):
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(ARCHIVED).file_size
        if size > path.stat().st_size:
            raise _RefusedError(
                f"{ARCHIVED} declares {size} bytes, more than the archive has"
            )
        yield io.BytesIO(archive.read(ARCHIVED))


def _read_layer(group, parents, arrays):
    if len(parents) > MAX_DEPTH:
        raise _RefusedError(f"layers are nested too deep at '{group.name}'")
    variables = _child(group, "vars")
    path = (*parents, variables.attrs["name"])
    if "layers" in group:
        raise _RefusedError(
            f"it holds the model '{path[-1]}' within another. Save the inner "
            "one by itself, with its `save_weights`, and load that file"
        )
    for number in variables:
        name = "/".join((*path, number))
        if name in arrays or not number.isdecimal():
            raise _RefusedError(f"'{name}' is there twice, or is no variable")
        arrays[name] = _array(_child(variables, number))
    for layer in _groups(group):
        # Random seeds are state, not weights.
        if not layer.name.endswith(("/vars", "/seed_generator")):
            _read_layer(layer, path, arrays)


def _groups(group):
    return [_child(group, name) for name in group]


def _child(group, name):
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _RefusedError(f"'{group.name}/{name}' is missing or a link")
    return group[name]


def _array(dataset):
    import ml_dtypes

    if dataset.external or dataset.is_virtual:
        raise _RefusedError(f"'{dataset.name}' keeps its data in another file")
    if dataset.nbytes > dataset.id.get_storage_size():
        raise _RefusedError(
            f"'{dataset.name}' declares {dataset.nbytes} bytes and stores "
            f"{dataset.id.get_storage_size()}"
        )
    # HDF5 has no bfloat16: Keras stores two opaque bytes and says so.
    if dataset.attrs.get("dtype") == "bfloat16":
        return np.asarray(dataset).view(ml_dtypes.bfloat16)
    if dataset.dtype.kind != "f":
        raise _RefusedError(
            f"'{dataset.name}' holds {dataset.dtype}, not floating-point "
            "weights. A quantised model is loaded as it is, with "
            "`keras.saving.load_model`"
        )
    return np.asarray(dataset)
