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
import mmap

from keras_mixer.weights import archives
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import File
from keras_mixer.weights.pickles import Dictionary
from keras_mixer.weights.pickles import Global
from keras_mixer.weights.pickles import Opaque
from keras_mixer.weights.torch_tensors import Tensor
from keras_mixer.weights.torch_tensors import Tensors
from keras_mixer.weights.torch_tensors import advice
from keras_mixer.weights.torch_tensors import arrays_of

logger = logging.getLogger("keras_mixer")

# The keys under which a training checkpoint stores the weights, in the order
# used by `timm.models.load_state_dict`. Averaged weights come first because
# published accuracies are measured with them.
AVERAGED_KEYS = ("state_dict_ema", "model_ema")
KEYS = (*AVERAGED_KEYS, "state_dict", "model")


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
    tensors = Tensors(path.stat().st_size)
    saved = tensors.follow(io.BytesIO(entry("data.pkl")))
    arrays = arrays_of(_state_dict(saved, path), read_storage)
    archives.check_content(archive, unread.values())
    return arrays


_BIG_ENDIAN = (
    "its numbers are stored in big-endian byte order, which is not supported. "
    "Save it again on a little-endian machine (x86 or ARM)"
)


def _read_legacy(path, content):
    followed = [Tensors(len(content)) for _ in range(5)]
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

    return arrays_of(_state_dict(saved, path), read_storage)


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


def _state_dict(saved, path):
    """Returns `{name: Tensor}` of the weights in the saved object."""
    if type(saved) is not Dictionary:
        raise WeightsError(
            f"expected a state dictionary. Received: {_described(saved)}. "
            f"{advice()}"
        )
    named = saved.by_name()
    found = [key for key in KEYS if type(named.get(key)) is Dictionary]
    if found:
        saved, named = named[found[0]], named[found[0]].by_name()
        kind = "averaged weights" if found[0] in AVERAGED_KEYS else "weights"
        others = f", not from {_quoted(found[1:])}" if found[1:] else ""
        logger.info("%s: %s taken from '%s'%s", path, kind, found[0], others)
    for name, tensor in saved:
        if type(name) is not str or type(tensor) is not Tensor:
            nested = [k for k, v in named.items() if _has_tensors(v)]
            raise WeightsError(
                "expected a state dictionary (names and tensors), alone or "
                f"under one of the keys {_quoted(KEYS)}. Received under "
                f"{_described(name)}: {_described(tensor)}. "
                f"{advice(*nested[:1])}"
            )
    return named


def _has_tensors(thing):
    return type(thing) is Dictionary and any(
        type(value) is Tensor for _, value in thing
    )


def _described(thing):
    """Describes `thing` briefly; the text of a tuple could be endless."""
    if type(thing) is str:
        return repr(thing[:50])
    if type(thing) is Opaque:
        return f"`{thing.name[:50]}`"
    names = {Tensor: "a tensor", Dictionary: "a dictionary", Global: "a class"}
    return names.get(type(thing), f"`{type(thing).__name__}`")


def _quoted(names):
    return ", ".join(f"'{name}'" for name in names)
