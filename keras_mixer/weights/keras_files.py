"""Files that Keras has written to `{name: array}`.

Keras numbers the layers of a file by their class (`mixer_block_3`) and the
variables of a layer by their order, and `keras.Model.load_weights` goes by
that: a deeper model's file then fills a shallower model without a word. The
names of the layers are in the file too, as attributes, so they are read
instead, and the next steps can tell exactly what is missing and what is too
much.

A file is refused unless all its data lies in it, plainly: a link out of the
file, or an array that declares more bytes than it stores, is no weights file
that Keras has written. libhdf5 opens it only after `hdf5_guard` has checked it.
"""

import io
import mmap

import numpy as np

from keras_mixer.weights import archives
from keras_mixer.weights import hdf5_guard
from keras_mixer.weights import keras_config
from keras_mixer.weights.errors import WeightsError
from keras_mixer.weights.formats import File
from keras_mixer.weights.formats import bfloat16

ARCHIVED = "model.weights.h5"  # the weights within a `.keras` file

# Layers of a model, of a block, of an MLP, and their variables: a file that
# nests deeper is no file of ours, or has a link that leads back.
MAX_DEPTH = 6


def read_h5(path):
    """Reads a `.weights.h5` file that Keras has written.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        A `File`. A name in it is the names of the layers that lead to the
        variable, and its number in its layer: `block_0/token_norm/0`.

    Raises:
        WeightsError: If the file keeps data elsewhere, or holds a quantised
            model or one within another. Libraries raise what they like on a
            damaged file.
    """
    with (
        path.open("rb") as file,
        # Gives the bytes without reading them all.
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return File(_read(file, content))


def read_archive(path):
    """Reads a `.keras` file; see `read_h5`."""
    with archives.open_archive(path) as archive:
        content = archives.read(archive, archive.getinfo(ARCHIVED))
        description = keras_config.read(archive)
    arrays = _read(io.BytesIO(content), content)
    return File(arrays, checksum=archives.CHECKSUM, **description._asdict())


def _read(file, content):
    import h5py

    hdf5_guard.check(content)
    with h5py.File(file, "r") as h5:
        reader = _Reader(len(content))
        for layer in _groups(_child(h5, "layers")):
            reader.read_layer(layer, ())
        return reader.arrays


class _Reader:
    """Reads the layers of a file of `size` bytes, each of them once."""

    def __init__(self, size):
        self.arrays = {}
        self._bytes_left = size
        self._seen = set()

    def read_layer(self, group, parents):
        if len(parents) > MAX_DEPTH or group.id in self._seen:
            raise WeightsError(
                f"layers are nested too deep, or twice, at '{group.name}'"
            )
        self._seen.add(group.id)
        variables = _child(group, "vars")
        path = (*parents, _text(variables, "name"))
        if "layers" in group:
            raise WeightsError(
                f"it holds the model '{path[-1]}' within another. Save the "
                "inner one by itself, with its `save_weights`, and load that "
                "file"
            )
        for number in variables:
            name = "/".join((*path, number))
            if name in self.arrays or not number.isdecimal():
                raise WeightsError(
                    f"'{name}' is there twice, or is no variable"
                )
            self.arrays[name] = self._read_array(_child(variables, number))
        for layer in _groups(group):
            # Random seeds are state, not weights.
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
    """An attribute that is a text, as Keras writes it.

    Any other is not even read: a sequence of what there is no such thing as
    makes libhdf5 crash.
    """
    import h5py

    attribute = thing.attrs.get_id(name)
    kind = h5py.check_string_dtype(attribute.dtype)
    if attribute.shape != () or kind is None or kind.length is not None:
        raise WeightsError(f"'{thing.name}' has a {name!r} that is no text")
    return thing.attrs[name]


def _array(dataset):
    if dataset.external or dataset.is_virtual:
        raise WeightsError(f"'{dataset.name}' keeps its data in another file")
    if dataset.nbytes > dataset.id.get_storage_size():
        raise WeightsError(
            f"'{dataset.name}' declares {dataset.nbytes} bytes and stores "
            f"{dataset.id.get_storage_size()}"
        )
    if dataset.id.get_create_plist().get_nfilters():
        raise WeightsError(f"'{dataset.name}' is compressed or filtered")
    # HDF5 has no bfloat16: Keras stores two opaque bytes and says so.
    if dataset.dtype == "V2" and _text(dataset, "dtype") == "bfloat16":
        return np.asarray(dataset).view(bfloat16())
    if dataset.dtype.kind != "f":
        raise WeightsError(
            f"'{dataset.name}' holds {dataset.dtype}, not floating-point "
            "weights. A quantised model is loaded as it is, with "
            "`keras.saving.load_model`"
        )
    return np.asarray(dataset)
