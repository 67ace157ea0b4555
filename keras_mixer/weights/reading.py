"""Files of weights to `{name: array}`, whatever library has written them.

The name of a file tells its format, or if it does not, its first bytes do. The
libraries of the formats are imported only when needed, and are not trusted with
a file of unknown origin: `numpy.load(allow_pickle=False)` still decompresses
archives to any size, and headers can declare terabytes. So what a file declares
is compared with what it holds before memory is allocated, code in a file is
never run, and every error of a library on a broken file becomes a
`WeightsError`.
"""

import pathlib

from keras_mixer.weights import archives
from keras_mixer.weights import hdf5_guard
from keras_mixer.weights import keras_files
from keras_mixer.weights import npz_files
from keras_mixer.weights import safetensors_files
from keras_mixer.weights import torch_files
from keras_mixer.weights.errors import WeightsError

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
    """Reads a file of weights.

    Args:
        path: Path of the file. If its name does not end in one of `SUFFIXES`,
            its content tells the format.

    Returns:
        A `formats.File`.

    Raises:
        WeightsError: If the file is damaged, is of another format than its
            name says, or holds anything but plain floating-point weights.
        OSError: If the file may not be opened.
        ImportError: If the library of the format is not installed.
    """
    path = pathlib.Path(path)
    try:
        file = READERS[_suffix(path)](path)
        for name, array in file.arrays.items():
            if not array.size:
                raise WeightsError(f"{name!r} is empty: {array.shape}")
        return file
    except WeightsError as error:
        raise WeightsError(
            f"Cannot load '{path}': {error}{_other_format(path)}"
        ) from error
    except (FileNotFoundError, ImportError, MemoryError, PermissionError):
        raise
    # The libraries raise nearly anything on broken files.
    except Exception as error:
        raise WeightsError(
            f"Cannot load '{path}': expected a file of weights, whole and "
            f"unchanged. Received: {type(error).__name__}: "
            f"{_first_line(error)}{_other_format(path)}"
        ) from error


def suffix_of_name(path):
    """The one of `SUFFIXES` that a file name has, or `None`."""
    name = pathlib.Path(path).name
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def suffix_of_content(path):
    """The one of `SUFFIXES` that a file should have, or `None`.

    Only the first bytes and the names in an archive are looked at.
    """
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(hdf5_guard.SIGNATURE):
        return ".weights.h5"
    if start.startswith(archives.SIGNATURES):
        return _suffix_of_archive(path)
    if torch_files.is_legacy_start(start):
        return ".pth"
    if safetensors_files.is_start(start, path.stat().st_size):
        return ".safetensors"
    return None


def _suffix_of_archive(path):
    with archives.open_archive(path) as archive:
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
            f"{', '.join(SUFFIXES)}, and its content is of none of these "
            f"formats.{_flax_advice(path)}"
        )
    return suffix


def _flax_advice(path):
    with path.open("rb") as file:
        first, second = file.read(2).ljust(2, b"\0")
    # A dictionary of MessagePack whose first key is a short text.
    if first & 0xF0 != 0x80 or second & 0xE0 != 0xA0:
        return ""
    return (
        " It may be a checkpoint of Flax (MessagePack). Convert it with Flax: "
        '`state = flax.serialization.msgpack_restore(open(PATH, "rb").read()); '
        'numpy.savez("weights.npz", **flax.traverse_util.flatten_dict('
        'state["params"], sep="/"))`. A checkpoint of vit_jax has its weights '
        'in `state["0"]`'
    )


def _other_format(path):
    """What to do if the name and the content are of two known formats."""
    suffix = suffix_of_name(path)
    try:
        content = suffix_of_content(path)
    except Exception:  # a damaged file
        return ""
    if None in (suffix, content) or READERS[suffix] is READERS[content]:
        return ""
    return f". Its content is that of a {content} file: rename it"


def _first_line(error):
    return str(error).strip().partition("\n")[0][:200]
