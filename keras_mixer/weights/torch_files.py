"""Files of PyTorch to `{name: array}`, without PyTorch.

`torch.load(weights_only=True)` runs no code of a file, but allocates whatever
sizes the file declares, and refuses training checkpoints with an
`argparse.Namespace` in them. So the pickle in a file is followed by `pickles`,
and NumPy reads the tensors from where the file stores them. Of the tensors
beside the weights, those of the optimizer for example, no arrays are made.

Two formats exist. Since PyTorch 1.6 a file is a zip archive:
`<folder>/data.pkl` describes the tensors, and `<folder>/data/<key>` holds the
data of one storage, which tensors may share. Before, a file was five pickles
(magic number, version, system, the object, keys of the storages) and then the
storages in that order, each after its number of elements.
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

# Where a training checkpoint keeps the weights, in the order in which
# `timm.models.load_state_dict` looks; published accuracies are those of the
# averages.
AVERAGED_KEYS = ("state_dict_ema", "model_ema")
KEYS = (*AVERAGED_KEYS, "state_dict", "model")

MAX_RANK = 64  # of an array in NumPy
SHOWN = 3  # names in an error

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


def read(path):
    """Reads a state dictionary that PyTorch has saved, in either format.

    In a training checkpoint, the state dictionary is the value of the first of
    `KEYS` that is there.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file holds Python objects that are not known to be
            data, or less than it declares, or no state dictionary. Other errors
            mean that it is damaged.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # How PyTorch tells its two formats apart.
        if content[:4] != archives.SIGNATURES[0]:
            return File(_read_legacy(path, content))
    with archives.open_archive(path) as archive:
        return File(_read_archive(path, archive), checksum=archives.CHECKSUM)


def is_legacy_start(start):
    """Whether a file that begins so is of the format before PyTorch 1.6."""
    magic_number = _MAGIC_NUMBER.to_bytes(10, "little")
    return start[:1] == b"\x80" and start[2:14] == b"\x8a\x0a" + magic_number


def _read_archive(path, archive):
    infos = {info.filename: info for info in archive.infolist()}
    folder, _, _ = next(iter(infos)).partition("/")
    unread = dict(infos)

    def entry(name):
        if f"{folder}/{name}" not in infos:
            raise WeightsError(f"it lacks '{folder}/{name}'")
        unread.pop(f"{folder}/{name}", None)
        return archives.read(archive, infos[f"{folder}/{name}"])

    def read_storage(storage):
        data = entry(f"data/{storage.key}")
        if len(data) != storage.nbytes:
            raise WeightsError(
                f"it declares {storage.nbytes} bytes in '{folder}/data/"
                f"{storage.key}' and has {len(data)}"
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
    "its numbers are stored in big-endian byte order. Save it again on a "
    "little-endian machine, such as any x86 or ARM computer"
)


def _read_legacy(path, content):
    followed = [_Tensors(len(content)) for _ in range(5)]
    magic_number, version, system, saved, keys = (
        tensors.follow(content) for tensors in followed
    )
    if (magic_number, version) != (_MAGIC_NUMBER, _PROTOCOL_VERSION):
        raise WeightsError("it is not a file that `torch.save` has written")
    if system.by_name().get("little_endian") is not True:
        raise WeightsError(_BIG_ENDIAN)
    starts = _starts(content, keys, followed[3].storages)

    def read_storage(storage):
        start = starts[storage.key]
        return content[start : start + storage.nbytes]

    return _arrays(_state_dict(saved, path), read_storage)


def _starts(content, keys, storages):
    """`{key: position of the data}` of the storages behind the pickles."""
    is_list = type(keys) is list and all(type(key) is str for key in keys)
    if not is_list or sorted(keys) != sorted(storages):
        raise WeightsError("it lists other data than it has tensors for")
    declared = sum(8 + storage.nbytes for storage in storages.values())
    stored = len(content) - content.tell()
    if declared != stored:
        raise WeightsError(f"it declares {declared} bytes and has {stored}")
    starts = {}
    position = content.tell()
    for key in keys:
        count = int.from_bytes(content[position : position + 8], "little")
        if count != storages[key].size:
            raise WeightsError(
                f"it declares {storages[key].size} numbers and has {count}"
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


# Types of storages, their dtypes in NumPy, and bytes per number.
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
    """Follows a pickle, and checks the tensors in it.

    Args:
        size: How many bytes all storages may have: those of the file.
    """

    def __init__(self, size):
        self.storages = {}
        self._bytes_left = size

    def follow(self, file):
        """The object of the pickle, in which tensors are a `_Tensor` each."""
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
                "it holds Python objects that are not loaded: "
                f"{_shortened(follower.unknown)}. {_advice()}"
            )
        return saved

    def _storage(self, pid):
        if pid[0] == "module":  # a class, and its source code
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
            raise WeightsError("one of its tensors has data of an unknown kind")
        dtype, itemsize = _STORAGES[kind]
        storage = _Storage(key, dtype, size, size * itemsize)
        known = self.storages.setdefault(key, storage)
        if known is storage:
            self._bytes_left -= storage.nbytes
        if self._bytes_left < 0:
            raise WeightsError("its tensors declare more bytes than it has")
        if known != storage:
            raise WeightsError("two of its tensors differ about their data")
        return known


def _tensor(storage, offset, shape, strides, *rest):
    numbers = (offset, *shape, *strides)
    is_valid = type(storage) is _Storage and len(shape) <= MAX_RANK
    if not is_valid or any(type(n) is not int or n < 0 for n in numbers):
        raise WeightsError("one of its tensors has no valid data or shape")
    steps = zip(shape, strides, strict=True)
    last = offset + sum((size - 1) * stride for size, stride in steps)
    if last >= storage.size:
        raise WeightsError("one of its tensors reaches beyond what it stores")
    # requires_grad, hooks, metadata: that its values are negated, for example.
    if rest[2:] not in ((), (None,)):
        return Opaque("torch.Tensor with metadata")
    return _Tensor(storage, offset, shape, strides)


def _parameter(data, *_):
    return data


def _state_dict(saved, path):
    """`{name: _Tensor}` of the weights in what was saved."""
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
                "expected a state dictionary, names and tensors, by itself or "
                f"under one of {_quoted(KEYS)}. Received under "
                f"{_described(name)}: {_described(tensor)}. "
                f"{_advice(*nested[:1])}"
            )
    return named


def _arrays(state, read_storage):
    """`{name: array}` of a state dictionary; each storage is read once."""
    for name, tensor in state.items():
        storage = tensor.storage
        if storage.dtype not in _FLOATS:
            raise WeightsError(not_weights(name, storage.dtype))
        # Strides of zero let a few bytes declare any shape.
        if tensor.nbytes > storage.nbytes:
            raise WeightsError(
                f"{name!r} declares {tensor.nbytes} bytes and stores "
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
    """How a file that can be read is made of one that cannot."""
    return (
        "Save the state dictionary by itself, with PyTorch: "
        f"`torch.save(torch.load(PATH, weights_only=False)[{key!r}], "
        "'weights.pth')`. If the file holds a whole model, take its "
        "`.state_dict()`. That runs code of the file: do it only if you trust "
        "where it comes from"
    )


def _described(thing):
    """A few words; never the text of a tuple, which may not end."""
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
