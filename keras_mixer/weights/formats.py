"""What the readers and writers of several formats share."""

import hashlib
import json
import re
from typing import NamedTuple

import numpy as np

# Keys of notes that `writing` adds to a file.
GRID_NOTE = "keras_mixer grid"
CHECKSUM_NOTE = "keras_mixer sha256"


class File(NamedTuple):
    """What a file holds."""

    arrays: dict  # {name: array}, as named in the file
    grid: tuple | None = None  # (rows, columns) of the tokens, where noted
    checksum: str | None = None  # kind of the checksum that was checked
    activation: str | None = None  # where the file says it
    scaling: tuple | None = None  # (mean, std) of pixels, where it says it


def parse_grid(note):
    """`(rows, columns)` of a note such as "9x16", or `None`."""
    found = re.fullmatch(
        rf"(?:{GRID_NOTE} )?([0-9]{{1,6}})x([0-9]{{1,6}})", note
    )
    return found and tuple(map(int, found.groups()))


def checksum(arrays, grid_note):
    """SHA-256 of names, dtypes, shapes and values, as hexadecimal digits.

    For each array, in the order of the names, it covers the JSON text
    `[name, dtype, shape]` and the bytes of the values, row by row.

    Args:
        arrays: `{name: array}`.
        grid_note: String, the note of the grid, or `""`; covered first.
    """
    digest = hashlib.sha256(grid_note.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        header = [name, str(array.dtype), arrays[name].shape]
        digest.update(json.dumps(header).encode())
        digest.update(array.reshape(-1).view("uint8"))
    return digest.hexdigest()


def bfloat16():
    """The dtype, which NumPy itself does not have."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def not_weights(name, dtype):
    """The error text for an array of integers, for example."""
    return f"{name!r} holds {dtype}, not floating-point weights"
