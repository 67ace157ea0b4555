"""Writes weights to a file that the official code or timm can load.

The file also gets notes, with a checksum: the comment of `.npz`, the metadata
of `.safetensors`. Without the note of the grid, a file for 9 x 16 tokens looks
like a file for 12 x 12 tokens. Without the notes of the activation and of the
scaling, the loaded model would compute other values.
"""

import math
import os
import pathlib
import zipfile

import numpy as np

from keras_mixer.arguments import check_local_path
from keras_mixer.atomic import replacing
from keras_mixer.optional import require
from keras_mixer.weights import naming
from keras_mixer.weights.formats import notes_of

SUFFIXES = (".npz", ".safetensors")


def check_file(name, path):
    """Returns the path of a file to write or to replace, after checking it."""
    check_local_path(name, path)
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"`{name}` must be a file. Received: the folder '{path}'"
        )
    return path


def check_target(path, family):
    """Checks the path to write to; returns the path and the layout."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"`path` must be a path. Received: path={path!r} (of type "
            f"{type(path).__name__})"
        )
    path = check_file("path", path)
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


def write(path, arrays, layout, config):
    """Writes `{path: array}` in a layout.

    If writing fails, no new file is left, and an existing file is unchanged.

    Args:
        path: `pathlib.Path` of the file. An existing file is replaced.
        arrays: `{path: array}`, written in float32.
        layout: A `layouts.Layout`.
        config: A `formats.ModelConfig`.
    """
    arrays = {key: array.astype("float32") for key, array in arrays.items()}
    named = naming.export_names(arrays, layout)
    is_npz = path.suffix == ".npz"
    if not is_npz:
        require("safetensors.numpy")  # an error in the block is one of writing
    with replacing(path) as part:
        (_write_npz if is_npz else _write_safetensors)(part, named, config)


def _write_npz(path, arrays, config):
    np.savez(path, **arrays)
    notes = notes_of(config, {})  # the archive has checksums of its arrays
    lines = [f"{key} {text}" for key, text in notes.items()]
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = "\n".join(lines).encode()


def _write_safetensors(path, arrays, config):
    safetensors = require("safetensors.numpy")
    # timm and transformers expect "pt".
    metadata = {"format": "pt", **notes_of(config, arrays)}
    # `save_file` creates a file that only its owner can read.
    path.touch()
    mode = path.stat().st_mode
    safetensors.save_file(arrays, path, metadata)
    path.chmod(mode)


def square(tokens):
    """Returns a square grid for this number of tokens, or else one row."""
    side = math.isqrt(tokens)
    return (side, side) if side**2 == tokens else (1, tokens)
