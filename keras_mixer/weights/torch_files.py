"""Reads PyTorch files as `{name: array}`, without PyTorch.

`torch.load(weights_only=True)` does not run code from a file. But it allocates
any size that the file declares, and it refuses training checkpoints that
contain an `argparse.Namespace`. Here `pickles` interprets the pickle in the
file, and NumPy reads the tensors from their place in the file. Other tensors,
for example those of the optimizer, are not loaded.

There are two formats. Since PyTorch 1.6 a file is a zip archive:
`<folder>/data.pkl` describes the tensors, and `<folder>/data/<key>` holds the
data of one storage. Several tensors can share a storage. Older files contain
five pickles (magic number, version, system, the object, keys of the storages).
The storages follow in the order of the keys, each after its number of elements.
"""

import io
import logging
import math
import mmap
from typing import NamedTuple

import numpy as np

from keras_mixer.weights import archives
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import not_weights
from keras_mixer.weights.pickles import Dictionary
from keras_mixer.weights.pickles import Follower
from keras_mixer.weights.pickles import Global
from keras_mixer.weights.pickles import Opaque

logger = logging.getLogger("keras_mixer")

# The keys under which a training checkpoint stores the weights, in the order
# used by `timm.models.load_state_dict`. Averaged weights come first because
# published accuracies are measured with them.
AVERAGED_KEYS = ("state_dict_ema", "model_ema")
KEYS = (*AVERAGED_KEYS, "state_dict", "model")

MAX_RANK = 64  # limit of NumPy
SHOWN = 3  # number of names in an error message

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


def read(path):
    """Reads a state dictionary saved by PyTorch, in either format.

    In a training checkpoint, the state dictionary is the value of the first
    key of `KEYS` that the checkpoint contains.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file contains Python objects that are not known to
            be plain data, if it has less data than it declares, or if it does
            not contain a state dictionary. Any other exception means that the
            file is damaged.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # PyTorch uses the same test to tell its two formats apart.
        if content[:4] != archives.SIGNATURES[0]:
            return File(_read_legacy(path, content))
    with archives.open_archive(path) as archive:
        return File(_read_archive(path, archive), checksum=archives.CHECKSUM)


def is_legacy_start(start):
    """Returns whether the first bytes are those of the legacy format."""
    magic_number = _MAGIC_NUMBER.to_bytes(10, "little")
    return start[:1] == b"\x80" and start[2:14] == b"\x8a\x0a" + magic_number


def _read_archive(path, archive):
    infos = {info.filename: info for info in archive.infolist()}
    folder, _, _ = next(iter(infos)).partition("/")
    unread = dict(infos)

    def entry(name):
        if f"{folder}/{name}" not in infos:
            raise WeightsError(f"'{folder}/{name}' is missing")
        unread.pop(f"{folder}/{name}", None)
        return archives.read(archive, infos[f"{folder}/{name}"])

    def read_storage(storage):
        data = entry(f"data/{storage.key}")
        if len(data) != storage.nbytes:
            raise WeightsError(
                f"it declares {storage.nbytes} bytes in '{folder}/data/"
                f"{storage.key}', but has {len(data)}"
            )
        return data

    if f"{folder}/byteorder" in infos and entry("byteorder") != b"little":
        raise WeightsError(_BIG_ENDIAN)
    tensors = _Tensors(path.stat().st_size)
    saved = tensors.follow(io.BytesIO(entry("data.pkl")))
    arrays = _arrays(_state_dict(saved, path), read_storage)
    archives.check_content(archive, unread.values())
    return arrays


_BIG_ENDIAN = (
    "its numbers are stored in big-endian byte order, which is not supported. "
    "Save it again on a little-endian machine (x86 or ARM)"
)


def _read_legacy(path, content):
    followed = [_Tensors(len(content)) for _ in range(5)]
    magic_number, version, system, saved, keys = (
        tensors.follow(content) for tensors in followed
    )
    if (magic_number, version) != (_MAGIC_NUMBER, _PROTOCOL_VERSION):
        raise WeightsError("it was not written by `torch.save`")
    if system.by_name().get("little_endian") is not True:
        raise WeightsError(_BIG_ENDIAN)
    starts = _starts(content, keys, followed[3].storages)

    def read_storage(storage):
        start = starts[storage.key]
        return content[start : start + storage.nbytes]

    return _arrays(_state_dict(saved, path), read_storage)


def _starts(content, keys, storages):
    """Returns `{key: position of the data}` of the storages."""
    is_list = type(keys) is list and all(type(key) is str for key in keys)
    if not is_list or sorted(keys) != sorted(storages):
        raise WeightsError("its list of storages does not match its tensors")
    declared = sum(8 + storage.nbytes for storage in storages.values())
    stored = len(content) - content.tell()
    if declared != stored:
        raise WeightsError(f"it declares {declared} bytes, but has {stored}")
    starts = {}
    position = content.tell()
    for key in keys:
        count = int.from_bytes(content[position : position + 8], "little")
        if count != storages[key].size:
            raise WeightsError(
                f"it declares {storages[key].size} numbers, but has {count}"
            )
        starts[key] = position + 8
        position += 8 + storages[key].nbytes
    return starts


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int
    nbytes: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    @property
    def nbytes(self):
        itemsize = self.storage.nbytes // max(self.storage.size, 1)
        return math.prod(self.shape) * itemsize


# `{type of storage: (NumPy dtype, bytes per number)}`.
_STORAGES = {
    f"torch.{name}Storage": (dtype, size)
    for name, dtype, size in (
        ("Double", "float64", 8),
        ("Float", "float32", 4),
        ("Half", "float16", 2),
        ("BFloat16", "bfloat16", 2),
        ("Long", "int64", 8),
        ("Int", "int32", 4),
        ("Short", "int16", 2),
        ("Char", "int8", 1),
        ("Byte", "uint8", 1),
        ("QInt8", "qint8", 1),
        ("QUInt8", "quint8", 1),
        ("QInt32", "qint32", 4),
        ("Bool", "bool", 1),
        ("ComplexFloat", "complex64", 8),
        ("ComplexDouble", "complex128", 16),
    )
} | {"torch.storage.UntypedStorage": ("bytes", 1)}


class _Tensors:
    """Interprets a pickle and checks the tensors in it.

    Args:
        size: Maximum number of bytes of all storages together: the file size.
    """

    def __init__(self, size):
        self.storages = {}
        self._bytes_left = size

    def follow(self, file):
        """Returns the object of the pickle, with each tensor as `_Tensor`."""
        follower = Follower(
            {
                "torch._utils._rebuild_tensor": _tensor,
                "torch._utils._rebuild_tensor_v2": _tensor,
                "torch._utils._rebuild_parameter": _parameter,
                "torch._utils._rebuild_parameter_with_state": _parameter,
            },
            self._storage,
        )
        saved = follower.follow(file)
        if follower.unknown:
            raise WeightsError(
                "it contains Python objects that are not loaded: "
                f"{_shortened(follower.unknown)}. {_advice()}"
            )
        return saved

    def _storage(self, pid):
        if pid[0] == "module":  # a class with its source code
            return pid[1]
        tag, kind, key, _, size, *view = pid
        if (
            tag != "storage"
            or type(kind) is not Global
            or kind not in _STORAGES
            or type(key) is not str
            or type(size) is not int
            or size < 0
            or view not in ([], [None])
        ):
            raise WeightsError("a tensor in it has a storage of unknown type")
        dtype, itemsize = _STORAGES[kind]
        storage = _Storage(key, dtype, size, size * itemsize)
        known = self.storages.setdefault(key, storage)
        if known is storage:
            self._bytes_left -= storage.nbytes
        if self._bytes_left < 0:
            raise WeightsError("its tensors declare more bytes than it has")
        if known != storage:
            raise WeightsError("its tensors contradict each other")
        return known


def _tensor(storage, offset, shape, strides, *rest):
    numbers = (offset, *shape, *strides)
    is_valid = type(storage) is _Storage and len(shape) <= MAX_RANK
    if not is_valid or any(type(n) is not int or n < 0 for n in numbers):
        raise WeightsError("a tensor in it has invalid data or shape")
    steps = zip(shape, strides, strict=True)
    last = offset + sum((size - 1) * stride for size, stride in steps)
    if last >= storage.size:
        raise WeightsError("a tensor in it extends beyond its storage")
    # The rest is requires_grad, hooks and metadata. Metadata can change the
    # values: for example, it can mark them as negated.
    if rest[2:] not in ((), (None,)):
        return Opaque("torch.Tensor with metadata")
    return _Tensor(storage, offset, shape, strides)


def _parameter(data, *_):
    return data


def _state_dict(saved, path):
    """Returns `{name: _Tensor}` of the weights in the saved object."""
    if type(saved) is not Dictionary:
        raise WeightsError(
            f"expected a state dictionary. Received: {_described(saved)}. "
            f"{_advice()}"
        )
    named = saved.by_name()
    found = [key for key in KEYS if type(named.get(key)) is Dictionary]
    if found:
        saved, named = named[found[0]], named[found[0]].by_name()
        kind = "averaged weights" if found[0] in AVERAGED_KEYS else "weights"
        others = f", not from {_quoted(found[1:])}" if found[1:] else ""
        logger.info("%s: %s taken from '%s'%s", path, kind, found[0], others)
    for name, tensor in saved:
        if type(name) is not str or type(tensor) is not _Tensor:
            nested = [k for k, v in named.items() if _has_tensors(v)]
            raise WeightsError(
                "expected a state dictionary (names and tensors), alone or "
                f"under one of the keys {_quoted(KEYS)}. Received under "
                f"{_described(name)}: {_described(tensor)}. "
                f"{_advice(*nested[:1])}"
            )
    return named


def _arrays(state, read_storage):
    """Returns `{name: array}`; reads each storage once."""
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.dtype not in _FLOATS:
            raise WeightsError(not_weights(name, storage.dtype))
        # With strides of zero, a few bytes can declare any shape.
        if tensor.nbytes > storage.nbytes:
            raise WeightsError(
                f"{name!r} declares {tensor.nbytes} bytes, but stores "
                f"{storage.nbytes}"
            )
    contents = {}
    arrays = {}
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.key not in contents:
            contents[storage.key] = read_storage(storage)
        arrays[name] = _array(tensor, contents[storage.key])
    return arrays


_FLOATS = ("float64", "float32", "float16", "bfloat16")


def _array(tensor, content):
    name = tensor.storage.dtype
    dtype = bfloat16() if name == "bfloat16" else np.dtype(name)
    return np.ndarray(
        tensor.shape,
        dtype,
        content,
        tensor.offset * dtype.itemsize,
        [stride * dtype.itemsize for stride in tensor.strides],
    )


def _has_tensors(thing):
    return type(thing) is Dictionary and any(
        type(value) is _Tensor for _, value in thing
    )


def _advice(key="state_dict"):
    """Returns how to make a readable file from one that is refused."""
    return (
        "Save only the state dictionary, with PyTorch: "
        f"`torch.save(torch.load(PATH, weights_only=False)[{key!r}], "
        "'weights.pth')`. If the file contains a whole model, use its "
        "`.state_dict()`. This runs code from the file: do it only if you "
        "trust the origin of the file"
    )


def _described(thing):
    """Describes `thing` briefly; the text of a tuple could be endless."""
    if type(thing) is str:
        return repr(thing[:50])
    if type(thing) is Opaque:
        return f"`{thing.name[:50]}`"
    names = {_Tensor: "a tensor", Dictionary: "a dictionary", Global: "a class"}
    return names.get(type(thing), f"`{type(thing).__name__}`")


def _shortened(names):
    shown = ", ".join(f"`{name[:100]}`" for name in list(names)[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _quoted(names):
    return ", ".join(f"'{name}'" for name in names)
