"""Which image files can be read, and by which decoder.

Every file is decoded once, in full: a truncated file often begins well.
"""

import os
import typing

import numpy as np

from keras_mixer.data.decoding import decode
from keras_mixer.data.indexed import mapped
from keras_mixer.data.photos import is_turned
from keras_mixer.data.photos import upright
from keras_mixer.optional import require

# How files begin that TensorFlow decodes as Pillow does.
JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG")


# How many unreadable files an error names.
MOST_NAMED = 3


class File(typing.NamedTuple):
    """An image file that can be read."""

    shape: tuple  # height and width
    by_pillow: bool


def examined(paths):
    """Decodes files: `{path: _File}`, or a string that says why it failed."""
    files = _examined_by_tensorflow([p for p in paths if _may_be_decoded(p)])
    others = [path for path in paths if path not in files]
    files |= _examined_by_pillow(others)
    return {path: files[path] for path in paths}


def _may_be_decoded(path):
    """Whether TensorFlow is to look at a file; others may be very large."""
    if path.suffix.lower() in (".jpeg", ".jpg", ".png"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(JPEG_OR_PNG)
    except OSError:
        return False


def _examined_by_tensorflow(paths):
    """`{path: _File}` of the files that TensorFlow decodes as `load_image`."""
    tf = require("tensorflow")
    names = [os.fsencode(path) for path in paths]
    shapes = mapped(
        tf.data.Dataset.from_tensor_slices(
            tf.constant(names, "string")
        ).enumerate(),
        lambda place, name: (place, _shape(name)),
    ).ignore_errors()
    return {
        paths[place]: File(tuple(shape[:2].tolist()), by_pillow=False)
        for place, shape in shapes.as_numpy_iterator()
        if shape.any()
    }


def _shape(name):
    """The shape of an image, once all of it has been read.

    Zeros if it is for Pillow.
    """
    tf = require("tensorflow")
    data = tf.io.read_file(name)

    def jpeg():
        # All of it: decoded to an eighth, a file may end too early unseen.
        return tf.shape(tf.io.decode_jpeg(data, 3, fancy_upscaling=False))

    def shape():
        return tf.cond(
            tf.io.is_jpeg(data), jpeg, lambda: tf.shape(decode(data, 3))
        )

    return tf.cond(
        tf.numpy_function(_is_for_pillow, [data], "bool", stateful=False),
        lambda: tf.zeros(3, "int32"),
        shape,
    )


def _is_for_pillow(data):
    return not data.startswith(JPEG_OR_PNG) or is_turned(data)


def _examined_by_pillow(paths):
    """`{path: _File}`, or a string that says why Pillow cannot read it."""
    if not paths:
        return {}
    require("PIL")
    tf = require("tensorflow")
    names = [os.fsencode(path) for path in paths]
    results = mapped(
        tf.data.Dataset.from_tensor_slices(names),
        lambda name: tf.numpy_function(
            _shape_or_reason, [name], ("int64", "string"), stateful=False
        ),
    )
    return {
        path: reason.decode() or File(tuple(shape.tolist()), by_pillow=True)
        for path, (shape, reason) in zip(
            paths, results.as_numpy_iterator(), strict=True
        )
    }


def _shape_or_reason(name):
    try:
        image = upright(os.fsdecode(name), 3)
    except (MemoryError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = " ".join(reason.split()) or type(error).__name__
        return np.zeros(2, "int64"), reason.encode()
    return np.array([image.height, image.width], "int64"), b""


def usable_of(paths, results):
    """`{path: _File}` of those that can be read."""
    return {
        path: results[path] for path in paths if isinstance(results[path], File)
    }


def unreadable_of(results):
    return [
        (path, result)
        for path, result in results.items()
        if isinstance(result, str)
    ]


def some_reasons(results):
    """The end of an error: what files could not be read, and why."""
    unreadable = unreadable_of(results)
    text = "".join(
        f"; '{path}': {reason}" for path, reason in unreadable[:MOST_NAMED]
    )
    more = len(unreadable) - MOST_NAMED
    return text + (f"; and {more} more files" if more > 0 else "")
