"""Checks which image files can be read, and by which decoder.

Each file is decoded once, completely: a truncated file often has a valid
beginning. The results can be stored (`ImageIndex`), so that the files are not
decoded again when a training is resumed.
"""

import json
import logging
import os
import pathlib
import typing

import numpy as np

from keras_mixer.data.decoding import decode
from keras_mixer.data.indexed import mapped
from keras_mixer.data.photos import is_turned
from keras_mixer.data.photos import upright
from keras_mixer.optional import require

# The first bytes of files that TensorFlow decodes like Pillow.
JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG")


logger = logging.getLogger("keras_mixer")

# At most this many unreadable files are in an error message.
MOST_NAMED = 3


class File(typing.NamedTuple):
    """An image file that can be read."""

    shape: tuple  # height and width
    by_pillow: bool


class ImageIndex:
    """The image files that can be decoded.

    A file is not decoded again if its size and its time of modification are
    unchanged.

    Args:
        entries: Dict `{path: [bytes, modified, height, width, by_pillow]}`;
            `modified` is in nanoseconds.
    """

    def __init__(self, entries: dict[str, list] | None = None) -> None:
        self._entries = entries or {}

    @classmethod
    def read(cls, path: pathlib.Path) -> typing.Self:
        """Reads an index. It is empty if the file is missing or damaged."""
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text("utf-8"))
            return cls({key: _checked(entry) for key, entry in content.items()})
        except (AttributeError, RecursionError, TypeError, ValueError):
            logger.warning("'%s' is damaged: images are checked again", path)
            return cls()

    def write(self, path: pathlib.Path) -> None:
        """Writes the index. The file is complete or not written.

        Raises:
            OSError: If the file cannot be written.
        """
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self._entries), "utf-8")
        part.replace(path)

    def get(self, path: pathlib.Path) -> File | None:
        """Returns the `File` of a path; `None` if it is unknown or changed."""
        entry = self._entries.get(str(path))
        if entry is None or entry[:2] != _status(path):
            return None
        _, _, height, width, by_pillow = entry
        return File((height, width), by_pillow)

    def shapes(self) -> list[tuple[int, int]]:
        """Returns the height and width in pixels of each file."""
        return [(entry[2], entry[3]) for entry in self._entries.values()]

    def add(self, path: pathlib.Path, file: File) -> None:
        """Adds the `File` of a path."""
        self._entries[str(path)] = [*_status(path), *file.shape, file.by_pillow]


def _checked(entry):
    *numbers, by_pillow = entry
    if list(map(type, entry)) != [int] * 4 + [bool]:
        raise TypeError(entry)
    return [*numbers, by_pillow]


def _status(path):
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def examined(paths, index):
    """Decodes the files that are not in an index, and adds them to it.

    Returns:
        `{path: result}`. The result is a `File`, or a string with the reason
        if the file cannot be read.
    """
    files = {path: index.get(path) for path in paths}
    files = {path: file for path, file in files.items() if file is not None}
    unknown = [path for path in paths if path not in files]
    new = _examined_by_tensorflow([p for p in unknown if _may_be_decoded(p)])
    new |= _examined_by_pillow([path for path in unknown if path not in new])
    for path, file in new.items():
        if isinstance(file, File):
            index.add(path, file)
    files |= new
    return {path: files[path] for path in paths}


def _may_be_decoded(path):
    """Returns whether TensorFlow may read a file.

    Other files are not read, since they can be very large.
    """
    if path.suffix.lower() in (".jpeg", ".jpg", ".png"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(JPEG_OR_PNG)
    except OSError:
        return False


def _examined_by_tensorflow(paths):
    """Returns `{path: File}` of files that TensorFlow decodes like Pillow."""
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
    """Returns the shape of an image after decoding all of it.

    The shape is zeros if Pillow must decode the image.
    """
    tf = require("tensorflow")
    data = tf.io.read_file(name)

    def jpeg():
        # Decode at full size: with `ratio=8` a truncated file can remain
        # undetected.
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
    """Returns `{path: result}`, a `File` or the reason of a failure."""
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
    """Returns `{path: File}` of the files that can be read."""
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
    """Returns the end of an error message: unreadable files and reasons."""
    unreadable = unreadable_of(results)
    text = "".join(
        f"; '{path}': {reason}" for path, reason in unreadable[:MOST_NAMED]
    )
    more = len(unreadable) - MOST_NAMED
    return text + (f"; and {more} more files" if more > 0 else "")
