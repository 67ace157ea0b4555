"""Files of weights to `{name: array}`, whatever library has written them.

Each format is read by the library it belongs to, imported only then. None of
them is trusted with a file from elsewhere: `allow_pickle=False` still leaves
archives that swell and headers that declare terabytes, `weights_only=True`
tensors larger than what is stored. So what a file declares is compared with
what it holds before any memory is asked for, no code of a file is ever run, and
whatever a library raises on a broken file becomes a `WeightsError`.
"""

import collections
import io
import json
import math
import mmap
import pathlib
import pickle
import re
from typing import NamedTuple

import numpy as np

from keras_mixer.weights import archives
from keras_mixer.weights import keras_files
from keras_mixer.weights.errors import WeightsError

GRID_NOTE = "keras_mixer grid"  # where a file can say it; see `writing`


class File(NamedTuple):
    """What a file holds."""

    arrays: dict  # {name: array}, as named in the file
    grid: tuple | None  # (rows, columns) of the tokens, where the file says it


def read(path):
    """Reads a file of weights.

    Args:
        path: Path of the file; its suffix is one of `READERS`.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file is damaged, is of another format than its
            name says, or holds anything but plain floating-point weights.
        OSError: If the file may not be opened.
        ImportError: If the library of the format is not installed.
    """
    path = pathlib.Path(path)
    try:
        file = _reader(path)(path)
        for name, array in file.arrays.items():
            if not array.size:
                raise WeightsError(f"{name!r} is empty: {array.shape}")
        return file
    except WeightsError as error:
        raise WeightsError(f"Cannot load '{path}': {error}") from error
    except (FileNotFoundError, ImportError, MemoryError, PermissionError):
        raise
    # The libraries raise nearly anything on broken files.
    except Exception as error:
        raise WeightsError(
            f"Cannot load '{path}': expected a file of weights, whole and "
            "unchanged, of the format that its name says. Received: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error


def is_readable(path):
    """Whether a file of this name is of a format that can be read."""
    return _reader(path) is not None


def _reader(path):
    name = pathlib.Path(path).name
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader
    return None


def _first_line(error):
    return str(error).strip().partition("\n")[0][:200]


def _read_keras(path):
    return File(keras_files.read(path), None)


def _read_npz(path):
    arrays = {}
    with archives.open_archive(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise WeightsError(f"it holds {name!r} twice")
                arrays[name] = _read_npy(file, name, info.file_size)
        return File(arrays, _grid(archive.comment.decode("latin-1")))


def _read_npy(file, name, size):
    """`numpy.load`, but nothing is allocated that is not stored."""
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    try:
        shape, is_fortran, dtype = read_header(file)
    except MemoryError as error:  # of Python's parser, for a deep nesting
        raise WeightsError(f"{name!r} has a header of another kind") from error
    if dtype.str == "|V2":
        dtype = _bfloat16()  # NumPy stores two plain bytes
    _check_dtype(name, dtype)
    expected = math.prod(shape) * dtype.itemsize
    if expected != size - file.tell():
        raise WeightsError(
            f"{name!r} declares {expected} bytes and has {size - file.tell()}"
        )
    array = np.frombuffer(file.read(expected), dtype)  # with its CRC-32 checked
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_safetensors(path):
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(_needs(path, "safetensors", "hub")) from error
    arrays = {}
    with safe_open(path, framework="numpy") as file:
        _check_unique(path)
        names = file.keys()
        for name in names:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in ("F64", "F32", "F16", "BF16"):
                raise WeightsError(_not_weights(name, dtype))
            arrays[name] = file.get_tensor(name)
        return File(arrays, _grid((file.metadata() or {}).get(GRID_NOTE, "")))


def _check_unique(path):
    """Refuses a header that has a name twice: the library takes the last."""

    def unique(pairs):
        for name, count in collections.Counter(n for n, _ in pairs).items():
            if count > 1:
                raise WeightsError(f"it holds {name!r} twice")

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        json.loads(file.read(size), object_pairs_hook=unique)


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(_needs(path, "PyTorch", "torch")) from error

    try:
        _rehearse(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own text explains how to run the code after all.
        raise WeightsError(
            "expected tensors and nothing else: objects in a file are not "
            "loaded, since that would run code of the file. Save the "
            "`state_dict()` alone"
        ) from error
    for key in ("state_dict", "model"):  # as training scripts save it
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise WeightsError(
            f"expected a state dictionary. Received: {type(state).__name__}"
        )
    return File({k: _from_torch(k, v) for k, v in state.items()}, None)


def _rehearse(path):
    """Refuses a file of PyTorch that declares more than it stores."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # How PyTorch tells its two formats.
        if content[:4] != b"PK\x03\x04":
            _rehearse_legacy(content)
            return
    archives.check_content(path)
    with archives.open_archive(path) as archive:
        files = archive.infolist()
        folder, _, _ = files[0].filename.partition("/")
        info = archive.getinfo(f"{folder}/data.pkl")
        content = io.BytesIO(archives.read(archive, info))
        _Rehearsal(content, path.stat().st_size).load()


def _rehearse_legacy(content):
    """Five pickles, then what the fourth speaks of, as the fifth orders it."""
    rehearsals = [_Rehearsal(content, len(content)) for _ in range(5)]
    *_, keys = [rehearsal.load() for rehearsal in rehearsals]
    storages = rehearsals[3].storages
    # PyTorch leaves a storage that is not listed as its memory was.
    is_list = type(keys) is list and all(type(key) is str for key in keys)
    if not is_list or sorted(keys) != sorted(storages):
        raise WeightsError("it lists other data than it has tensors for")
    declared = sum(8 + storage.nbytes for storage in storages.values())
    stored = len(content) - content.tell()
    if declared != stored:
        raise WeightsError(f"it declares {declared} bytes and has {stored}")


class _Global(str):
    """The name of a class or a function in a pickle, never the thing."""


class _Storage(NamedTuple):
    size: int
    nbytes: int


_ITEM_SIZES = {
    _Global(f"torch.{kind}Storage"): size
    for kind, size in {
        "Double": 8,
        "Float": 4,
        "Half": 2,
        "BFloat16": 2,
        "Long": 8,
        "Int": 4,
        "Short": 2,
        "Char": 1,
        "Byte": 1,
        "Bool": 1,
    }.items()
}


class _Rehearsal(pickle._Unpickler):
    """Follows a pickle of tensors, without a tensor being made.

    PyTorch with `weights_only=True` runs no code of a file, but makes storages
    and tensors as large as the pickle says, and calls what makes them out of
    nothing (`torch.FloatTensor(2**40)`, `bytearray`). A tuple of tuples, each
    twice in the next, would as a key keep it busy for good. Here nothing is
    known but what the state dictionary of a model needs, by name only.

    Args:
        file: Where the pickle begins, and no further than its end is read.
        size: How many bytes all storages may have: those of the file.
    """

    def __init__(self, file, size):
        super().__init__(file, encoding="utf-8")
        self.storages = {}  # {key: storage}
        self._bytes_left = size

    def find_class(self, module, name):
        return _Global(f"{module}.{name}")

    def persistent_load(self, pid):
        tag, kind, key, _, size, *view = pid
        if (
            tag != "storage"
            or type(kind) is not _Global
            or kind not in _ITEM_SIZES
            or type(key) is not str
            or type(size) is not int
            or size < 0
            or view not in ([], [None])
        ):
            raise pickle.UnpicklingError("expected a storage")
        if key not in self.storages:
            storage = _Storage(size, size * _ITEM_SIZES[kind])
            self._bytes_left -= storage.nbytes
            if self._bytes_left < 0:
                raise WeightsError("its tensors declare more bytes than it has")
            self.storages[key] = storage
        return self.storages[key]

    def _reduce(self):
        arguments = self.stack.pop()
        function = self.stack.pop()
        made = None
        if function == "collections.OrderedDict" and arguments == ():
            made = collections.OrderedDict()
        elif function == "torch._utils._rebuild_tensor_v2":
            _check_tensor(*arguments[:4])
        elif function not in ("torch._utils._rebuild_parameter", "torch.Size"):
            raise pickle.UnpicklingError(f"it calls {type(function).__name__}")
        self.append(made)

    def _build(self):
        self.stack.pop()
        if type(self.stack[-1]) is not collections.OrderedDict:
            raise pickle.UnpicklingError("it changes an object")

    def _set_item(self):
        value = self.stack.pop()
        self._set(self.stack.pop(), value)

    def _set_items(self):
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key, value):
        if type(key) not in (str, int):
            raise pickle.UnpicklingError("expected a name")
        if key in self.stack[-1]:
            raise WeightsError(f"it holds {key!r} twice")
        self.stack[-1][key] = value

    dispatch = {
        code: pickle._Unpickler.dispatch[code]
        for code in b"\x80.(t)\x85\x86\x87]ae}NXUGJKM\x88\x89\x8acQhjqr"
    } | {
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
    }


def _check_tensor(storage, offset, shape, strides):
    """Refuses a tensor that reaches beyond its storage: PyTorch enlarges it."""
    numbers = (offset, *shape, *strides)
    if type(storage) is not _Storage or any(
        type(number) is not int or number < 0 for number in numbers
    ):
        raise pickle.UnpicklingError("expected a tensor of a storage")
    steps = zip(shape, strides, strict=True)
    last = offset + sum((size - 1) * stride for size, stride in steps)
    if last >= storage.size:
        raise WeightsError("one of its tensors reaches beyond what it stores")


def _from_torch(name, tensor):
    import torch

    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise WeightsError(
            "expected names and tensors. Received: "
            f"{type(name).__name__} and {type(tensor).__name__}"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise WeightsError(_not_weights(name, tensor.layout))
    # Strides of zero let a few bytes declare any shape.
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise WeightsError(
            f"{name!r} declares {tensor.nbytes} bytes and stores "
            f"{tensor.untyped_storage().nbytes()}"
        )
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # which NumPy does not have
        return tensor.view(torch.int16).numpy().view(_bfloat16())
    if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
        raise WeightsError(_not_weights(name, tensor.dtype))
    return tensor.numpy()


def _bfloat16():
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _check_dtype(name, dtype):
    if dtype.kind != "f" and dtype != _bfloat16():
        raise WeightsError(_not_weights(name, dtype))


def _not_weights(name, dtype):
    return f"{name!r} holds {dtype}, not floating-point weights"


def _needs(path, library, extra):
    return (
        f"Reading '{path}' needs {library}. Install it with "
        f"`pip install keras_mixer[{extra}]`."
    )


def _grid(note):
    found = re.fullmatch(
        rf"(?:{GRID_NOTE} )?([0-9]{{1,6}})x([0-9]{{1,6}})", note
    )
    return found and tuple(map(int, found.groups()))


READERS = {
    ".weights.h5": _read_keras,
    ".keras": _read_keras,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}
SUFFIXES = tuple(READERS)
