"""The weights of a model to a file that the official code or timm loads.

A grid that is not square is noted where other programs ignore it: in the
comment of the archive, in the metadata of safetensors. Without the note, a file
for 9 x 16 tokens looks like one for 12 x 12. The metadata of safetensors also
has a checksum; an archive has one of its own.
"""

import math
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from keras_mixer.optional import require
from keras_mixer.weights import naming
from keras_mixer.weights.formats import CHECKSUM_NOTE
from keras_mixer.weights.formats import GRID_NOTE
from keras_mixer.weights.formats import checksum

SUFFIXES = (".npz", ".safetensors")


def check_target(path, family):
    """Returns the path to write to, and the layout; says what it cannot be."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"`path` must be a path. Received: path={path!r} (of type "
            f"{type(path).__name__})"
        )
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            "`path` must end in .npz (Flax, as the official Mixers) or in "
            f".safetensors (timm). Received: path='{path}'"
        )
    name = "flax" if path.suffix == ".npz" else "timm"
    for layout in naming.LAYOUTS:
        if (layout.name, layout.family) == (name, family):
            return path, layout
    raise ValueError(
        "There is no ResMLP in Flax to write a file for. Give a path that ends "
        f"in .safetensors. Received: path='{path}'"
    )


def write(path, arrays, layout, grid):
    """Writes `{path: array}` in a layout.

    If that fails, no file is left, and one that was there is unchanged.

    Args:
        path: The file; one that exists is replaced.
        arrays: `{path: array}`, written in float32.
        layout: A `naming.Layout`.
        grid: `(rows, columns)` of the tokens.
    """
    arrays = {key: array.astype("float32") for key, array in arrays.items()}
    named = naming.export_names(arrays, layout)
    note = None if grid[0] == grid[1] else "{}x{}".format(*grid)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = pathlib.Path(folder, path.name)
        writer = _write_npz if path.suffix == ".npz" else _write_safetensors
        writer(part, named, note)
        part.replace(path)


def _write_npz(path, arrays, note):
    np.savez(path, **arrays)
    if note:
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = f"{GRID_NOTE} {note}".encode()


def _write_safetensors(path, arrays, note):
    safetensors = require("safetensors.numpy")
    # "pt" is what timm and transformers expect to find.
    metadata = {"format": "pt", CHECKSUM_NOTE: checksum(arrays, note or "")}
    if note:
        metadata[GRID_NOTE] = note
    # This makes a file that only its owner may read.
    path.touch()
    mode = path.stat().st_mode
    safetensors.save_file(arrays, path, metadata)
    path.chmod(mode)


def square(tokens):
    """The grid of so many tokens, if it is a square; else one row."""
    side = math.isqrt(tokens)
    return (side, side) if side**2 == tokens else (1, tokens)
