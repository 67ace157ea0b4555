"""Reads safetensors files as `{name: array}`.

The format does not have a checksum, so a flipped bit in the values changes a
weight without an error. `writing` adds a checksum to the metadata. It is
checked here if it is present. Other programs ignore it.
"""

import collections
import json

from keras_mixer.optional import require
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import CHECKSUM_NOTE
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import config_of
from keras_mixer.weights.formats import not_weights


def read(path):
    """Reads a `.safetensors` file.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file is damaged or differs from its checksum.
        ImportError: If safetensors is not installed.
    """
    safetensors = require("safetensors")
    arrays = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        _check_unique(path)
        names = file.keys()
        for name in names:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in ("F64", "F32", "F16", "BF16"):
                raise WeightsError(not_weights(name, dtype))
            arrays[name] = file.get_tensor(name)
        metadata = file.metadata() or {}
    checksum = CHECKSUM_NOTE in metadata
    return File(
        arrays,
        config_of(metadata, arrays),
        "SHA-256 of the tensors" if checksum else None,
    )


def is_start(start, size):
    """Returns whether a file with these first bytes can be safetensors."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= size - 8


def _check_unique(path):
    """Refuses duplicate names: the library would use the last one."""

    def unique(pairs):
        for name, count in collections.Counter(n for n, _ in pairs).items():
            if count > 1:
                raise WeightsError(f"it contains {name!r} twice")

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        json.loads(file.read(size), object_pairs_hook=unique)
