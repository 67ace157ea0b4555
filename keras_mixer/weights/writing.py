"""Writes weights to a file that the official code or timm can load.

If the grid is not square, a note of the grid is added. Without the note, a file
for 9 x 16 tokens looks like a file for 12 x 12 tokens. The note is in the
comment of the archive, or in the metadata of safetensors. Other programs ignore
it. A safetensors file also gets notes of the activation and of the scaling of
the pixels, and a checksum. An archive already has checksums.
"""

import json
import math
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from keras_mixer.optional import require
from keras_mixer.weights import naming
from keras_mixer.weights.formats import ACTIVATION_NOTE
from keras_mixer.weights.formats import CHECKSUM_NOTE
from keras_mixer.weights.formats import GRID_NOTE
from keras_mixer.weights.formats import SCALING_NOTE
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


def write(path, arrays, layout, grid, activation=None, scaling=None):
    """Writes `{path: array}` in a layout.

    If writing fails, no new file is left, and an existing file is unchanged.

    Args:
        path: `pathlib.Path` of the file. An existing file is replaced.
        arrays: `{path: array}`, written in float32.
        layout: A `naming.Layout`.
        grid: `(rows, columns)` of the tokens.
        activation: Name of the activation of the MLPs, or `None`.
        scaling: `(mean, std)` of the pixels, or `None`.
    """
    arrays = {key: array.astype("float32") for key, array in arrays.items()}
    named = naming.export_names(arrays, layout)
    notes = {
        GRID_NOTE: "" if grid[0] == grid[1] else "{}x{}".format(*grid),
        ACTIVATION_NOTE: activation or "",
        SCALING_NOTE: "" if scaling is None else json.dumps(scaling),
    }
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = pathlib.Path(folder, path.name)
        writer = _write_npz if path.suffix == ".npz" else _write_safetensors
        writer(part, named, notes)
        part.replace(path)


def _write_npz(path, arrays, notes):
    np.savez(path, **arrays)
    if notes[GRID_NOTE]:
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = f"{GRID_NOTE} {notes[GRID_NOTE]}".encode()


def _write_safetensors(path, arrays, notes):
    safetensors = require("safetensors.numpy")
    # timm and transformers expect "pt".
    metadata = {"format": "pt"}
    metadata |= {name: note for name, note in notes.items() if note}
    metadata[CHECKSUM_NOTE] = checksum(arrays, *notes.values())
    # `save_file` creates a file that only its owner can read.
    path.touch()
    mode = path.stat().st_mode
    safetensors.save_file(arrays, path, metadata)
    path.chmod(mode)


def square(tokens):
    """Returns a square grid for this number of tokens, or else one row."""
    side = math.isqrt(tokens)
    return (side, side) if side**2 == tokens else (1, tokens)
