"""Writes weights to a file that the official code or timm can load.

If the grid is not square, a note of the grid is added. Without the note, a file
for 9 x 16 tokens looks like a file for 12 x 12 tokens. The note is in the
comment of the archive, or in the metadata of safetensors. Other programs ignore
it. A safetensors file also gets a checksum in its metadata. An archive already
has checksums.
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
    """Checks the path to write to; returns the path and the layout."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"`path` must be a path. Received: path={path!r} (of type "
            f"{type(path).__name__})"
        )
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            "`path` must end in .npz (Flax, like the official Mixers) or in "
            ".safetensors (timm; PyTorch reads it with "
            "`safetensors.torch.load_file`, so a .pth file is not needed). "
            f"Received: path='{path}'"
        )
    name = "flax" if path.suffix == ".npz" else "timm"
    for layout in naming.LAYOUTS:
        if (layout.name, layout.family) == (name, family):
            return path, layout
    raise ValueError(
        "There is no ResMLP in Flax, so .npz is not supported. Use a path that "
        f"ends in .safetensors. Received: path='{path}'"
    )


def write(path, arrays, layout, grid):
    """Writes `{path: array}` in a layout.

    If writing fails, no new file is left, and an existing file is unchanged.

    Args:
        path: `pathlib.Path` of the file. An existing file is replaced.
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
    # timm and transformers expect "pt".
    metadata = {"format": "pt", CHECKSUM_NOTE: checksum(arrays, note or "")}
    if note:
        metadata[GRID_NOTE] = note
    # `save_file` creates a file that only its owner can read.
    path.touch()
    mode = path.stat().st_mode
    safetensors.save_file(arrays, path, metadata)
    path.chmod(mode)


def square(tokens):
    """Returns a square grid for this number of tokens, or else one row."""
    side = math.isqrt(tokens)
    return (side, side) if side**2 == tokens else (1, tokens)
