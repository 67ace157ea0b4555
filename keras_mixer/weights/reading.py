"""Reads weights files of all supported formats as `{name: array}`.

The format follows from the file name, or else from the first bytes. The
libraries of the formats are imported only when needed.

A file of unknown origin is not passed to these libraries unchecked. For
example, `numpy.load(allow_pickle=False)` decompresses archives to any size, and
headers can declare terabytes. So the declared sizes are compared with the
stored sizes before memory is allocated. Code from a file is never run. If a
library raises any error for a broken file, it becomes a `WeightsError`.
"""

import pathlib

from keras_mixer.weights import hdf5_guard
from keras_mixer.weights import keras_files
from keras_mixer.weights import npz_files
from keras_mixer.weights import safetensors_files
from keras_mixer.weights import torch_files
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import ZIP_SIGNATURES
from keras_mixer.weights.formats import open_archive

READERS = {
    ".weights.h5": keras_files.read_h5,
    ".keras": keras_files.read_archive,
    ".npz": npz_files.read,
    ".safetensors": safetensors_files.read,
    ".pth": torch_files.read,
    ".pt": torch_files.read,
    ".bin": torch_files.read,
    ".ckpt": torch_files.read,
    ".pth.tar": torch_files.read,
}
SUFFIXES = tuple(READERS)


def read(path):
    """Reads a weights file.

    Args:
        path: Path of the file. If its name does not end in one of `SUFFIXES`,
            the format is detected from the content.

    Returns:
        A `formats.File`.

    Raises:
        WeightsError: If the file is damaged, does not have the format of its
            name, or contains arrays that are not floating-point weights.
        OSError: If the file cannot be opened.
        ImportError: If the library of the format is not installed.
    """
    path = pathlib.Path(path)
    try:
        file = READERS[_suffix(path)](path)
        for name, array in file.arrays.items():
            if not array.size:
                raise WeightsError(f"{name!r} is empty: {array.shape}")
        return file
    except (FileNotFoundError, ImportError, MemoryError, PermissionError):
        raise
    # The libraries can raise any exception for broken files.
    except Exception as error:
        reason = _other_format(path)
        if isinstance(error, WeightsError):
            reason = f"{error}. {reason}" if reason else error
        elif not reason:
            reason = (
                "the file is damaged. Get it again. Received: "
                f"{type(error).__name__}: {_first_line(error)}"
            )
        raise WeightsError(f"Cannot load '{path}': {reason}") from error


def suffix_of_name(path):
    """Returns the suffix of a file name from `SUFFIXES`, or `None`."""
    name = pathlib.Path(path).name
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def suffix_of_content(path):
    """Returns the suffix from `SUFFIXES` that fits the content, or `None`.

    It looks only at the first bytes and at the names in an archive.
    """
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(hdf5_guard.SIGNATURE):
        return ".weights.h5"
    if start.startswith(ZIP_SIGNATURES):
        return _suffix_of_archive(path)
    if torch_files.is_legacy_start(start):
        return ".pth"
    if safetensors_files.is_start(start, path.stat().st_size):
        return ".safetensors"
    return None


def _suffix_of_archive(path):
    with open_archive(path) as archive:
        names = archive.namelist()
    if keras_files.ARCHIVED in names:
        return ".keras"
    if any(name.endswith("/data.pkl") for name in names):
        return ".pth"
    if any(name.endswith(".npy") for name in names):
        return ".npz"
    return None


def _suffix(path):
    suffix = suffix_of_name(path) or suffix_of_content(path)
    if suffix is None:
        raise WeightsError(
            "its name does not end in one of "
            f"{', '.join(SUFFIXES)}, and its content does not have one of "
            f"these formats.{_flax_advice(path)}"
        )
    return suffix


def _flax_advice(path):
    with path.open("rb") as file:
        first, second = file.read(2).ljust(2, b"\0")
    # A MessagePack dictionary whose first key is a short string.
    if first & 0xF0 != 0x80 or second & 0xE0 != 0xA0:
        return ""
    return (
        " It may be a Flax checkpoint (MessagePack). Convert it with Flax: "
        '`state = flax.serialization.msgpack_restore(open(PATH, "rb").read()); '
        'numpy.savez("weights.npz", **flax.traverse_util.flatten_dict('
        'state["params"], sep="/"))`. A checkpoint of vit_jax has its weights '
        'in `state["0"]` instead'
    )


def _other_format(path):
    """Returns what the content is, if not what the name says; or `""`."""
    suffix = suffix_of_name(path)
    try:
        content = suffix_of_content(path)
    except Exception:  # a damaged archive
        return ""
    if suffix is None or READERS[suffix] is READERS.get(content):
        return ""
    if content is not None:
        return f"Its content is that of a {content} file: rename the file"
    return (
        f"Its content is not that of a {suffix} file. It is a file of another "
        "library, or its beginning is damaged"
    )


def _first_line(error):
    return str(error).strip().partition("\n")[0][:200]
