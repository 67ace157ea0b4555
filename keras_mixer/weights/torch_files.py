"""Files of PyTorch to `{name: array}`.

`torch.load(weights_only=True)` runs no code of a file, and is what reads it.
But it believes what the pickle in a file says of sizes, so the pickle is
followed once before, with nothing made: `_Rehearsal`.
"""

import collections
import io
import mmap
import pickle
from typing import NamedTuple

from keras_mixer.weights import archives
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import missing_library
from keras_mixer.weights.formats import not_weights


def read(path):
    """Reads a state dictionary that PyTorch has saved, in either format.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        `{name: array}`; what training scripts put around it is left out.

    Raises:
        WeightsError: If there is anything in the file but tensors, or less than
            it declares. PyTorch raises what it likes on a damaged file.
        ImportError: If PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(missing_library(path, "PyTorch", "torch")) from error

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
    return {k: _from_torch(k, v) for k, v in state.items()}


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
        raise WeightsError(not_weights(name, tensor.layout))
    # Strides of zero let a few bytes declare any shape.
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise WeightsError(
            f"{name!r} declares {tensor.nbytes} bytes and stores "
            f"{tensor.untyped_storage().nbytes()}"
        )
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # which NumPy does not have
        return tensor.view(torch.int16).numpy().view(bfloat16())
    if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
        raise WeightsError(not_weights(name, tensor.dtype))
    return tensor.numpy()
