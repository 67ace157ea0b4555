"""Files of weights to `{name: array}`, whatever library has written them.

Each format is read by the library it belongs to, imported only then. None of
them is trusted with a file from elsewhere: `allow_pickle=False` still leaves
archives that swell and headers that declare terabytes, `weights_only=True`
tensors larger than what is stored. So what a file declares is compared with
what it holds before any memory is asked for, no code of a file is ever run, and
whatever a library raises on a broken file becomes a `WeightsError`.
"""

import collections
import json
import math
import pathlib
import re
from typing import NamedTuple

import numpy as np

from keras_mixer.weights import archives
from keras_mixer.weights import keras_files
from keras_mixer.weights import torch_files
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import missing_library
from keras_mixer.weights.formats import not_weights

GRID_NOTE = "keras_mixer grid"  # where a file can say it; see `writing`


class File(NamedTuple):
    """What a file holds."""

    arrays: dict  # {name: array}, as named in the file
    grid: tuple | None  # (rows, columns) of the tokens, where the file says it


def read(path):
    """Reads a file of weights.

    Args:
        path: Path of the file; its suffix is one of `READERS`.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file is damaged, is of another format than its
            name says, or holds anything but plain floating-point weights.
        OSError: If the file may not be opened.
        ImportError: If the library of the format is not installed.
    """
    path = pathlib.Path(path)
    try:
        file = _reader(path)(path)
        for name, array in file.arrays.items():
            if not array.size:
                raise WeightsError(f"{name!r} is empty: {array.shape}")
        return file
    except WeightsError as error:
        raise WeightsError(f"Cannot load '{path}': {error}") from error
    except (FileNotFoundError, ImportError, MemoryError, PermissionError):
        raise
    # The libraries raise nearly anything on broken files.
    except Exception as error:
        raise WeightsError(
            f"Cannot load '{path}': expected a file of weights, whole and "
            "unchanged, of the format that its name says. Received: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error


def is_readable(path):
    """Whether a file of this name is of a format that can be read."""
    return _reader(path) is not None


def _reader(path):
    name = pathlib.Path(path).name
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader
    return None


def _first_line(error):
    return str(error).strip().partition("\n")[0][:200]


def _read_keras(path):
    return File(keras_files.read(path), None)


def _read_torch(path):
    return File(torch_files.read(path), None)


def _read_npz(path):
    arrays = {}
    with archives.open_archive(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise WeightsError(f"it holds {name!r} twice")
                arrays[name] = _read_npy(file, name, info.file_size)
        return File(arrays, _grid(archive.comment.decode("latin-1")))


def _read_npy(file, name, size):
    """`numpy.load`, but nothing is allocated that is not stored."""
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    try:
        shape, is_fortran, dtype = read_header(file)
    except MemoryError as error:  # of Python's parser, for a deep nesting
        raise WeightsError(f"{name!r} has a header of another kind") from error
    if dtype.str == "|V2":
        dtype = bfloat16()  # NumPy stores two plain bytes
    if dtype.kind != "f" and dtype != bfloat16():
        raise WeightsError(not_weights(name, dtype))
    expected = math.prod(shape) * dtype.itemsize
    if expected != size - file.tell():
        raise WeightsError(
            f"{name!r} declares {expected} bytes and has {size - file.tell()}"
        )
    array = np.frombuffer(file.read(expected), dtype)  # with its CRC-32 checked
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_safetensors(path):
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(
            missing_library(path, "safetensors", "hub")
        ) from error
    arrays = {}
    with safe_open(path, framework="numpy") as file:
        _check_unique(path)
        names = file.keys()
        for name in names:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in ("F64", "F32", "F16", "BF16"):
                raise WeightsError(not_weights(name, dtype))
            arrays[name] = file.get_tensor(name)
        return File(arrays, _grid((file.metadata() or {}).get(GRID_NOTE, "")))


def _check_unique(path):
    """Refuses a header that has a name twice: the library takes the last."""

    def unique(pairs):
        for name, count in collections.Counter(n for n, _ in pairs).items():
            if count > 1:
                raise WeightsError(f"it holds {name!r} twice")

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        json.loads(file.read(size), object_pairs_hook=unique)


def _grid(note):
    found = re.fullmatch(
        rf"(?:{GRID_NOTE} )?([0-9]{{1,6}})x([0-9]{{1,6}})", note
    )
    return found and tuple(map(int, found.groups()))


READERS = {
    ".weights.h5": _read_keras,
    ".keras": _read_keras,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}
SUFFIXES = tuple(READERS)
