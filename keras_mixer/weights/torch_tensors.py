"""The tensors in the pickle of a PyTorch file, as NumPy arrays.

A tensor is a view of a storage: an offset, a shape and strides. They are
checked against the size of the file before memory is allocated.
"""

import math
from typing import NamedTuple

import numpy as np

from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import not_weights
from keras_mixer.weights.pickles import Follower
from keras_mixer.weights.pickles import Global
from keras_mixer.weights.pickles import Opaque

MAX_RANK = 64  # limit of NumPy


SHOWN = 3  # number of names in an error message


class Storage(NamedTuple):
    key: str
    dtype: str
    size: int
    nbytes: int


class Tensor(NamedTuple):
    storage: Storage
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


class Tensors:
    """Interprets a pickle and checks the tensors in it.

    Args:
        size: Maximum number of bytes of all storages together: the file size.
    """

    def __init__(self, size):
        self.storages = {}
        self._bytes_left = size

    def follow(self, file):
        """Returns the object of the pickle, with each tensor as `Tensor`."""
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
                f"{_shortened(follower.unknown)}. {advice()}"
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
        storage = Storage(key, dtype, size, size * itemsize)
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
    is_valid = type(storage) is Storage and len(shape) <= MAX_RANK
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
    return Tensor(storage, offset, shape, strides)


def _parameter(data, *_):
    return data


def arrays_of(state, read_storage):
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


def advice(key="state_dict"):
    """Returns how to make a readable file from one that is refused."""
    return (
        "Save only the state dictionary, with PyTorch: "
        f"`torch.save(torch.load(PATH, weights_only=False)[{key!r}], "
        "'weights.pth')`. If the file contains a whole model, use its "
        "`.state_dict()`. This runs code from the file: do it only if you "
        "trust the origin of the file"
    )


def _shortened(names):
    shown = ", ".join(f"`{name[:100]}`" for name in list(names)[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
