"""What the readers and the writers of all formats share.

Notes say what the weights alone do not show: see `ModelConfig`. `writing` adds
them to the metadata of `.safetensors` or to the comment of `.npz`. Other
programs ignore them.

`.npz`, `.keras` and PyTorch files are zip archives. A zip archive can contain a
name twice, declare a thousand times the size that it stores, or contain a path
outside its folder. Python's `zipfile` does not detect these problems. It checks
the CRC-32 of each file that it reads. It can decompress more bytes than the
archive declares; `read_member` limits this.
"""

import contextlib
import hashlib
import json
import math
import pathlib
import re
import zipfile
from typing import NamedTuple

import numpy as np

from keras_mixer.weights.errors import WeightsError


class ModelConfig(NamedTuple):
    """How to use weights; `None` where a file does not say it."""

    grid: tuple | None = None  # (rows, columns) of the tokens
    activation: str | None = None
    scaling: tuple | None = None  # (mean, std) of pixels in [0, 1]
    tiles: int = 1  # how many times resizing widened the MLP over tokens


class File(NamedTuple):
    """The content of a weights file."""

    arrays: dict  # {name: array}, as named in the file
    config: ModelConfig = ModelConfig()
    checksum: str | None = None  # kind of the checksum that was checked


def bfloat16():
    """Returns the bfloat16 dtype, which is not part of NumPy."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def not_weights(name, dtype):
    """Returns the error message for an array that is not floating-point."""
    return f"{name!r} holds {dtype}, not floating-point weights"


# Notes.

_KEYS = tuple(f"keras_mixer {name}" for name in ModelConfig._fields)
CHECKSUM_NOTE = "keras_mixer sha256"


def notes_of(config, arrays):
    """Returns `{key: text}`, the notes of a file.

    A square grid is not noted: it follows from the number of tokens.

    Args:
        config: A `ModelConfig`.
        arrays: `{name: array}`, what the checksum covers besides the notes.
    """
    grid, activation, scaling, tiles = config
    texts = (
        "" if grid is None or grid[0] == grid[1] else "{}x{}".format(*grid),
        activation or "",
        "" if scaling is None else json.dumps(scaling),
        "" if tiles == 1 else str(tiles),
    )
    notes = {k: text for k, text in zip(_KEYS, texts, strict=True) if text}
    # First, so that a comment that is cut does not lose it.
    return {CHECKSUM_NOTE: _checksum(notes, arrays), **notes}


def config_of(notes, arrays):
    """Returns the `ModelConfig` in notes. Their checksum is checked, if any.

    Args:
        notes: `{key: text}`. Other keys are ignored.
        arrays: `{name: array}`, as for `notes_of`.

    Raises:
        WeightsError: If a note is invalid or the checksum differs.
    """
    if CHECKSUM_NOTE in notes and (
        notes[CHECKSUM_NOTE] != _checksum(notes, arrays)
    ):
        raise WeightsError(
            "its content differs from the checksum in its notes: the file is "
            "damaged, or another program changed it and kept the notes. Get "
            f"the file again. If the change was intended, remove "
            f"'{CHECKSUM_NOTE}' from the notes"
        )
    readers = (_grid, _activation, _scaling, _tiles)
    config = ModelConfig()
    for key, field, read in zip(_KEYS, config._fields, readers, strict=True):
        if key in notes:
            value = read(notes[key])
            if value is None:
                raise WeightsError(
                    f"its note '{key}' is not valid: {notes[key][:50]!r}"
                )
            config = config._replace(**{field: value})
    return config


def _grid(text):
    found = re.fullmatch("([0-9]{1,6})x([0-9]{1,6})", text)
    return found and tuple(map(int, found.groups()))


def _activation(text):
    return text if re.fullmatch(r"[\w.>]{1,80}", text, re.ASCII) else None


def _scaling(text):
    try:
        return parse_scaling(*json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return None


def _tiles(text):
    return int(text) if re.fullmatch("[1-9][0-9]{0,5}", text) else None


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


def _checksum(notes, arrays):
    """Returns the SHA-256 of notes, names, dtypes, shapes and values.

    The digest first covers the texts of the notes. Then, for each array in the
    order of the names, it covers the JSON text `[name, dtype, shape]` and the
    bytes of the values in C order.
    """
    texts = (notes.get(key, "") for key in _KEYS)
    digest = hashlib.sha256("".join(texts).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        header = [name, str(array.dtype), arrays[name].shape]
        digest.update(json.dumps(header).encode())
        digest.update(array.reshape(-1).view("uint8"))
    return digest.hexdigest()


# Zip archives.

# For `File.checksum`.
CRC = "CRC-32 of each array"

# The first bytes of an archive with files, and of an empty archive.
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

# Largest accepted compression ratio. Floating-point weights compress much less;
# a zip bomb compresses much more.
_MAX_RATIO = 20


@contextlib.contextmanager
def open_archive(path):
    """Opens the archive at `path` after checking its list of files."""
    with zipfile.ZipFile(path) as archive:
        _check_members(archive, pathlib.Path(path).stat().st_size)
        yield archive


def _check_members(archive, size):
    names = set()
    for info in archive.infolist():
        name = info.filename
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise WeightsError(f"the name {name!r} leads outside the archive")
        if name.lower() in names:
            raise WeightsError(f"it contains {name!r} twice")
        names.add(name.lower())
        # Other methods can expand without limit, and are not used for weights.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{name!r} in it has an unsupported compression")
        is_stored = info.compress_type == zipfile.ZIP_STORED
        if is_stored and info.compress_size != info.file_size:
            raise WeightsError(
                f"{name!r} in it declares {info.file_size} bytes, but stores "
                f"{info.compress_size}"
            )
    declared = sum(info.file_size for info in archive.infolist())
    if declared > _MAX_RATIO * size:
        raise WeightsError(
            f"it declares {declared} bytes of content, but has {size} bytes"
        )


def read_member(archive, info):
    """Returns the content of a file in an archive; checks its CRC-32."""
    with archive.open(info) as file:
        return file.read(info.file_size)  # not more than declared


def check_content(archive):
    """Reads all files in an archive only to check their CRC-32."""
    for info in archive.infolist():
        with archive.open(info) as file:
            while file.read(2**20):
                pass
