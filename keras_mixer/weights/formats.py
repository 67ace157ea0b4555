"""Code shared by the readers and writers of several formats."""

import hashlib
import json
import math
import re
from typing import NamedTuple

import numpy as np

# Keys of the notes that `writing` adds to a file.
GRID_NOTE = "keras_mixer grid"
ACTIVATION_NOTE = "keras_mixer activation"
SCALING_NOTE = "keras_mixer scaling"
CHECKSUM_NOTE = "keras_mixer sha256"


class File(NamedTuple):
    """The content of a weights file."""

    arrays: dict  # {name: array}, as named in the file
    grid: tuple | None = None  # (rows, columns) of the tokens, if known
    checksum: str | None = None  # kind of the checksum that was checked
    activation: str | None = None  # if the file has it
    scaling: tuple | None = None  # (mean, std) of pixels, if it has it


def parse_grid(note):
    """Returns `(rows, columns)` from a note such as "9x16", or `None`."""
    found = re.fullmatch(
        rf"(?:{GRID_NOTE} )?([0-9]{{1,6}})x([0-9]{{1,6}})", note
    )
    return found and tuple(map(int, found.groups()))


def parse_activation(note):
    """Returns the name of an activation from a note, or `None`."""
    return note if re.fullmatch("[a-z][a-z0-9_]{0,30}", note) else None


def parse_scaling(mean, std):
    """Returns `(mean, std)` as tuples of floats, or `None`.

    Args:
        mean, std: Values from a file, which can be of any type.
    """
    try:
        scaling = tuple(tuple(map(float, values)) for values in (mean, std))
    except (TypeError, ValueError, OverflowError):
        return None
    if [len(values) for values in scaling] != [3, 3] or 0 in scaling[1]:
        return None
    if not all(map(math.isfinite, (*scaling[0], *scaling[1]))):
        return None
    return scaling


def checksum(arrays, *notes):
    """Returns the SHA-256 of notes, names, dtypes, shapes and values.

    The digest first covers the notes. Then, for each array in the order of the
    names, it covers the JSON text `[name, dtype, shape]` and the bytes of the
    values in C order.

    Args:
        arrays: `{name: array}`.
        *notes: Strings, the notes of the grid, of the activation and of the
            scaling, or `""` if the file does not have the note.

    Returns:
        String of hexadecimal digits.
    """
    digest = hashlib.sha256("".join(notes).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        header = [name, str(array.dtype), arrays[name].shape]
        digest.update(json.dumps(header).encode())
        digest.update(array.reshape(-1).view("uint8"))
    return digest.hexdigest()


def bfloat16():
    """Returns the bfloat16 dtype, which is not part of NumPy."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def not_weights(name, dtype):
    """Returns the error message for an array that is not floating-point."""
    return f"{name!r} holds {dtype}, not floating-point weights"
