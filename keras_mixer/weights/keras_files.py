"""Reads files written by Keras as `{name: array}`.

In a file, Keras numbers the layers of each class (`mixer_block_3`) and the
variables of each layer. `keras.Model.load_weights` uses these numbers. So it
loads the file of a deeper model into a shallower model without an error. The
file also contains the names of the layers, as attributes. This module reads the
names, so the next steps can report exactly which weights are missing or
unexpected.

All data must be stored in the file itself. Keras does not write links to other
files, or arrays that declare more bytes than they store, so these are refused.
`hdf5_guard` checks each file before libhdf5 opens it.
"""

import io
import mmap

import numpy as np

from keras_mixer.weights import hdf5_guard
from keras_mixer.weights import keras_config
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import CRC
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import bfloat16
from keras_mixer.weights.formats import open_archive
from keras_mixer.weights.formats import read_member

ARCHIVED = "model.weights.h5"  # the weights within a `.keras` file

# Layers are nested at most like this: model, block, MLP, layer, variables. A
# file with deeper nesting is not from this package, or contains a loop.
MAX_DEPTH = 6


def read_h5(path):
    """Reads a `.weights.h5` file written by Keras.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`. Each name consists of the names of the nested layers and the
        number of the variable in its layer: `block_0/token_norm/0`.

    Raises:
        WeightsError: If the file stores data elsewhere, or contains a quantized
            or nested model. For damaged files, h5py raises other exceptions.
    """
    with (
        path.open("rb") as file,
        # Gives access to the bytes without reading the whole file.
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return File(_read(file, content))


def read_archive(path):
    """Reads a `.keras` file; see `read_h5`."""
    with open_archive(path) as archive:
        content = read_member(archive, archive.getinfo(ARCHIVED))
        config = keras_config.read(archive)
    return File(_read(io.BytesIO(content), content), config, CRC)


def _read(file, content):
    import h5py

    hdf5_guard.check(content)
    with h5py.File(file, "r") as h5:
        if "layers" not in h5:
            raise WeightsError(
                "it has no group 'layers': it was not written by "
                "`save_weights` of Keras 3"
            )
        reader = _Reader(len(content))
        for layer in _groups(_child(h5, "layers")):
            reader.read_layer(layer, ())
        return reader.arrays


class _Reader:
    """Reads the layers of a file of `size` bytes, each layer once."""

    def __init__(self, size):
        self.arrays = {}
        self._bytes_left = size
        self._seen = set()

    def read_layer(self, group, parents):
        if len(parents) > MAX_DEPTH or group.id in self._seen:
            raise WeightsError(
                f"the layer '{group.name}' is nested too deep, or occurs twice"
            )
        self._seen.add(group.id)
        variables = _child(group, "vars")
        path = (*parents, _text(variables, "name"))
        if "layers" in group:
            raise WeightsError(
                f"it contains the model '{path[-1]}' within another model. "
                "Save the inner model with its own `save_weights`, and load "
                "that file"
            )
        for number in variables:
            name = "/".join((*path, number))
            if name in self.arrays or not number.isdecimal():
                raise WeightsError(
                    f"'{name}' occurs twice, or is not a variable"
                )
            self.arrays[name] = self._read_array(_child(variables, number))
        for layer in _groups(group):
            # The state of random generators is not a weight.
            if not layer.name.endswith(("/vars", "/seed_generator")):
                self.read_layer(layer, path)

    def _read_array(self, dataset):
        self._bytes_left -= dataset.nbytes
        if self._bytes_left < 0:
            raise WeightsError("its arrays declare more bytes than it has")
        return _array(dataset)


def _groups(group):
    return [_child(group, name) for name in group]


def _child(group, name):
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise WeightsError(f"'{group.name}/{name}' is missing or a link")
    return group[name]


def _text(thing, name):
    """Returns an attribute that is a string.

    Other types are refused unread: libhdf5 crashes on some of them.
    """
    import h5py

    attribute = thing.attrs.get_id(name)
    kind = h5py.check_string_dtype(attribute.dtype)
    if attribute.shape != () or kind is None or kind.length is not None:
        raise WeightsError(f"'{thing.name}' has no valid string {name!r}")
    return thing.attrs[name]


def _array(dataset):
    if dataset.external or dataset.is_virtual:
        raise WeightsError(f"'{dataset.name}' stores its data in another file")
    if dataset.nbytes > dataset.id.get_storage_size():
        raise WeightsError(
            f"'{dataset.name}' declares {dataset.nbytes} bytes, but stores "
            f"{dataset.id.get_storage_size()}"
        )
    if dataset.id.get_create_plist().get_nfilters():
        raise WeightsError(f"'{dataset.name}' is compressed or filtered")
    # HDF5 does not have bfloat16. Keras stores two opaque bytes per number, and
    # the dtype as an attribute.
    if dataset.dtype == "V2" and _text(dataset, "dtype") == "bfloat16":
        return np.asarray(dataset).view(bfloat16())
    if dataset.dtype.kind != "f":
        raise WeightsError(
            f"'{dataset.name}' holds {dataset.dtype}, not floating-point "
            "weights. Load a quantized model with `keras.saving.load_model`"
        )
    return np.asarray(dataset)
