"""Reads PyTorch files as `{name: array}`, with PyTorch.

`torch.load(weights_only=True)` does not run code from a file. It refuses
training checkpoints that contain other Python objects than plain data;
`argparse.Namespace`, which timm and DeiT store, is allowed. The tensors are
mapped, so tensors that are not used, for example those of the optimizer, take
no memory. PyTorch 2.13 does not check the CRC-32 of an archive (not reported),
so this is done here.

Since PyTorch 1.6 a file is a zip archive. Older files are a sequence of
pickles and numbers, which cannot be mapped and have no checksum.
"""

import argparse
import logging
import pickle
import re

from keras_mixer.optional import require
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import CRC
from keras_mixer.weights.formats import ZIP_SIGNATURES
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import check_content
from keras_mixer.weights.formats import not_weights
from keras_mixer.weights.formats import open_archive

logger = logging.getLogger("keras_mixer")

# The keys under which a training checkpoint stores the weights, in the order
# used by `timm.models.load_state_dict`. Averaged weights come first because
# published accuracies are measured with them.
AVERAGED_KEYS = ("state_dict_ema", "model_ema")
KEYS = (*AVERAGED_KEYS, "state_dict", "model")

# The start of the first pickle in a file of the older format.
_MAGIC_NUMBER = b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")


def read(path):
    """Reads a state dictionary saved by PyTorch, in either format.

    In a training checkpoint, the state dictionary is the value of the first
    key of `KEYS` that the checkpoint contains.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`.

    Raises:
        WeightsError: If the file contains other Python objects, or does not
            contain a state dictionary. Any other exception means that the file
            is damaged.
        ImportError: If PyTorch is not installed.
    """
    torch = require("torch")
    with path.open("rb") as file:
        # PyTorch uses the same test to tell its two formats apart.
        is_archive = file.read(4) == ZIP_SIGNATURES[0]
    if is_archive:
        with open_archive(path) as archive:
            check_content(archive)
    saved = _load(torch, path, is_archive)
    state = _state_dict(torch, saved, path)
    arrays = {name: _array(torch, name, state[name]) for name in state}
    return File(arrays, checksum=CRC if is_archive else None)


def is_legacy_start(start):
    """Returns whether the first bytes are those of the older format."""
    return start[:1] == b"\x80" and start[2:14] == _MAGIC_NUMBER


def _load(torch, path, is_archive):
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=is_archive
            )
    except MemoryError as error:
        raise WeightsError("it declares more data than it has") from error
    except (pickle.UnpicklingError, RuntimeError) as error:
        # "Unsupported global: GLOBAL os.system was not an allowed global"
        named = re.search(r"GLOBAL ([\w.]+)|(TorchScript)", str(error))
        if named is not None:
            raise WeightsError(
                "it contains Python objects that PyTorch does not load without "
                f"running code: `{named[1] or named[2]}`. {_advice()}"
            ) from error
        if isinstance(error, RuntimeError):
            raise
        # PyTorch's message advises to run code from the file.
        raise WeightsError(
            "PyTorch cannot read its pickle: it is damaged, or was saved with "
            "another `pickle_protocol` than PyTorch's"
        ) from error


def _advice(key="state_dict"):
    """Returns how to make a readable file from one that is refused."""
    return (
        "Save only the state dictionary, with these two lines: "
        f"`state = torch.load(PATH, weights_only=False)[{key!r}]` and "
        "`torch.save(state, 'weights.pth')`. If the file contains a whole "
        "model, use its `.state_dict()`. This runs code from the file: do it "
        "only if you trust the origin of the file"
    )


def _state_dict(torch, saved, path):
    """Returns `{name: tensor}` of the weights in the saved object."""
    if not isinstance(saved, dict):
        raise WeightsError(
            f"expected a state dictionary. Received: {_described(saved)}. "
            f"{_advice()}"
        )
    found = [key for key in KEYS if isinstance(saved.get(key), dict)]
    if found:
        saved = saved[found[0]]
        kind = "averaged weights" if found[0] in AVERAGED_KEYS else "weights"
        others = f", not from {_quoted(found[1:])}" if found[1:] else ""
        logger.info("%s: %s taken from '%s'%s", path, kind, found[0], others)
    for name, tensor in saved.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            nested = [
                key
                for key, value in saved.items()
                if isinstance(value, dict)
                and any(isinstance(v, torch.Tensor) for v in value.values())
            ]
            raise WeightsError(
                "expected a state dictionary (names and tensors), alone or "
                f"under one of the keys {_quoted(KEYS)}. Received under "
                f"{_described(name)}: {_described(tensor)}. "
                f"{_advice(*nested[:1])}"
            )
    return saved


def _array(torch, name, tensor):
    """Returns a view of a tensor."""
    tensor = tensor.detach()
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in ("float64", "float32", "float16", "bfloat16"):
        raise WeightsError(not_weights(name, dtype))
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise WeightsError(
            f"{name!r} is not a dense tensor with values: {tensor.layout}, "
            f"device {tensor.device.type}"
        )
    # With strides of zero, a few bytes can declare any shape.
    stored = tensor.untyped_storage().nbytes()
    if tensor.nbytes > stored:
        raise WeightsError(
            f"{name!r} declares {tensor.nbytes} bytes, but stores {stored}"
        )
    tensor = tensor.resolve_neg()
    if dtype == "bfloat16":
        return tensor.view(torch.int16).numpy().view(bfloat16())
    return tensor.numpy()


def _described(thing):
    if isinstance(thing, str):
        return repr(thing[:50])
    return f"`{type(thing).__name__}`"


def _quoted(names):
    return ", ".join(f"'{name}'" for name in names)
