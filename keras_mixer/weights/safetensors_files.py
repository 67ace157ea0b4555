"""Files of safetensors to `{name: array}`.

The format has no checksum, so a flipped bit in the values changes a weight
without an error. `writing` therefore adds one to the metadata, which other
programs ignore; it is checked here where it is present.
"""

import collections
import json

from keras_mixer.optional import require
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import CHECKSUM_NOTE
from keras_mixer.weights.formats import GRID_NOTE
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import checksum
from keras_mixer.weights.formats import not_weights
from keras_mixer.weights.formats import parse_grid


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
    note = metadata.get(GRID_NOTE, "")
    expected = metadata.get(CHECKSUM_NOTE)
    if expected is None:
        return File(arrays, parse_grid(note))
    if checksum(arrays, note) != expected:
        raise WeightsError(
            "its tensors differ from the checksum in its metadata: the file is "
            "damaged, or another program changed it and kept the metadata. Get "
            f"it again, or remove '{CHECKSUM_NOTE}' from the metadata if the "
            "change was intended"
        )
    return File(arrays, parse_grid(note), "SHA-256 of the tensors")


def is_start(start, size):
    """Whether a file of `size` bytes that begins so may be of this format."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= size - 8


def _check_unique(path):
    """Refuses a header that has a name twice: the library takes the last."""

    def unique(pairs):
        for name, count in collections.Counter(n for n, _ in pairs).items():
            if count > 1:
                raise WeightsError(f"it holds {name!r} twice")

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        json.loads(file.read(size), object_pairs_hook=unique)
