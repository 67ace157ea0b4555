"""Reads NumPy archives (`.npz`) as `{name: array}`.

`numpy.load(allow_pickle=False)` does not run code from a file. But it accepts
archives that decompress to any size and arrays that declare terabytes. Here
the declared sizes are compared with the stored sizes before memory is
allocated.
"""

import logging
import math
import re

import numpy as np

from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import CRC
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import config_of
from keras_mixer.weights.formats import not_weights
from keras_mixer.weights.formats import open_archive

logger = logging.getLogger("keras_mixer")

# Checkpoints of big_vision store the weights here. They also have `opt/` and
# `extra/`.
PARAMS = "params/"


def read(path):
    """Reads a `.npz` file.

    If some names start with `params/`, only those arrays are read.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file is damaged or declares more than it stores.
    """
    arrays = {}
    with open_archive(path) as archive:
        for info in _weights(path, archive.infolist()):
            with archive.open(info) as file:
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise WeightsError(f"it contains {name!r} twice")
                arrays[name] = _read_npy(file, name, info.file_size)
        config = config_of(_notes(archive.comment.decode("latin-1")), {})
        return File(arrays, config, CRC)


def _notes(comment):
    """Returns the notes that `writing` added: a line has a key and a text."""
    found = re.findall(r"^(keras_mixer \w+) (.*)$", comment, re.MULTILINE)
    return dict(found)


def _weights(path, infos):
    params = [info for info in infos if info.filename.startswith(PARAMS)]
    if params and len(params) < len(infos):
        logger.info("%s: only the weights in '%s' are used", path, PARAMS)
    return params or infos


def _read_npy(file, name, size):
    """Like `numpy.load`, but allocates only what the file stores."""
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    try:
        shape, is_fortran, dtype = read_header(file)
    except MemoryError as error:  # from Python's parser, for deep nesting
        raise WeightsError(f"{name!r} has an invalid header") from error
    if dtype.str == "|V2":
        dtype = bfloat16()  # NumPy stores bfloat16 as two raw bytes
    if dtype.kind != "f" and dtype != bfloat16():
        raise WeightsError(not_weights(name, dtype))
    expected = math.prod(shape) * dtype.itemsize
    if expected != size - file.tell():
        raise WeightsError(
            f"{name!r} declares {expected} bytes, but has {size - file.tell()}"
        )
    array = np.frombuffer(file.read(expected), dtype)  # checks CRC-32
    return array.reshape(shape, order="F" if is_fortran else "C")
