"""Checks which image files can be read, and by which decoder.

Each file is decoded once, completely: a truncated file often has a valid
beginning. The results can be stored (`ImageIndex`), so that the files are not
decoded again when a training is resumed. A digest of the content of each file
shows then whether the images are still the same.
"""

import hashlib
import json
import logging
import os
import pathlib
import typing

import numpy as np

from keras_mixer import atomic
from keras_mixer.arguments import check_local_path
from keras_mixer.data.indexed import mapped
from keras_mixer.data.photos import is_turned
from keras_mixer.data.photos import upright
from keras_mixer.data.preparing import decode
from keras_mixer.optional import require

# The first bytes of files that TensorFlow decodes like Pillow.
JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG")


logger = logging.getLogger("keras_mixer")

# At most this many files are in an error message.
MOST_NAMED = 3


class File(typing.NamedTuple):
    """An image file that can be read."""

    shape: tuple  # height and width
    by_pillow: bool
    digest: str  # of the content


class ImageIndex:
    """The image files that can be decoded.

    A file is not read again if its status is unchanged: size, time of
    modification, inode and time of change. The inode and the time of change
    show that a file was exchanged for another of the same size and time.

    Args:
        entries: Dict `{path: [bytes, modified, inode, changed, height, width,
            by_pillow, digest]}`; the times are in nanoseconds, and `digest` is
            that of the content.
    """

    def __init__(self, entries: dict[str, list] | None = None) -> None:
        self._entries = entries or {}
        self._digests = self._digests_of(self._entries)  # as recorded

    @classmethod
    def read(cls, path: pathlib.Path) -> typing.Self:
        """Reads an index. It is empty if the file is missing or damaged."""
        check_local_path("path", path)
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
        check_local_path("path", path)
        with atomic.replacing(path) as part:
            part.write_text(json.dumps(self._entries), "utf-8")

    def check_unchanged(self, images: typing.Any) -> None:
        """Raises an error if images are not those that the index was read with.

        Files that were touched or copied are the same if their content is. An
        index that was empty cannot be compared; the log says so.

        Args:
            images: The `Data` that was loaded with this index.

        Raises:
            ValueError: If files were changed, added or removed. The message
                names some of them.

        Example:

        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from keras_mixer import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i, color in enumerate(["teal", "navy"] * 5):
        ...         path = pathlib.Path(folder, color, f"{i}.png")
        ...         path.parent.mkdir(exist_ok=True)
        ...         Image.new("RGB", (4, 3), color).save(path)
        ...     index = data.ImageIndex()
        ...     images = data.load_folder(folder, 8, index=index)
        ...     index.check_unchanged(images)
        """
        parts = images.train_paths, images.validation_paths, images.test_paths
        now = self._digests_of({p for paths in parts for p in paths})
        then = self._digests
        if now and not then:
            logger.warning(
                "The images in '%s' are not compared with those that the "
                "training began with: the record of these is missing or "
                "damaged",
                images.name,
            )
            return
        common = {path for path in now if path in then}
        differences = {
            "changed": {path for path in common if now[path] != then[path]},
            "new": now.keys() - common,
            "missing or unreadable": then.keys() - common,
        }
        named = [_some(paths, kind) for kind, paths in differences.items()]
        if any(named):
            raise ValueError(
                f"The images in '{images.name}' are not those that the "
                "training began with. Restore them, or begin a new training "
                f"in another folder. Received: {'; '.join(filter(None, named))}"
            )

    def _digests_of(self, paths):
        return {path: self._entries[path][-1] for path in paths}

    def get(self, path: pathlib.Path) -> File | None:
        """Returns the `File` of a path; `None` if it is unknown or changed."""
        entry = self._entries.get(str(path))
        if entry is None or entry[:4] != _status(path):
            return None
        *_, height, width, by_pillow, digest = entry
        return File((height, width), by_pillow, digest)

    def shapes(self) -> list[tuple[int, int]]:
        """Returns the height and width in pixels of each file."""
        return [(entry[4], entry[5]) for entry in self._entries.values()]

    def add(self, path: pathlib.Path, file: File) -> None:
        """Adds the `File` of a path."""
        shape, by_pillow, digest = file
        self._entries[str(path)] = [*_status(path), *shape, by_pillow, digest]


def _checked(entry):
    if list(map(type, entry)) != [int] * 6 + [bool, str]:
        raise TypeError(entry)
    return entry


def _status(path):
    status = os.stat(path)
    return [
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        status.st_ctime_ns,
    ]


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
    results = mapped(
        tf.data.Dataset.from_tensor_slices(
            tf.constant(names, "string")
        ).enumerate(),
        lambda place, name: (place, *_shape_and_digest(name)),
    ).ignore_errors()
    return {
        paths[place]: File(tuple(shape[:2].tolist()), False, digest.decode())
        for place, shape, digest in results.as_numpy_iterator()
        if shape.any()
    }


def _shape_and_digest(name):
    """Returns the shape of an image after decoding all of it, and its digest.

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

    for_pillow, digest = tf.numpy_function(
        _is_for_pillow, [data], ("bool", "string"), stateful=False
    )
    shape = tf.cond(for_pillow, lambda: tf.zeros(3, "int32"), shape)
    return shape, digest


def _is_for_pillow(data):
    """Returns whether Pillow must decode an image, and its digest."""
    for_pillow = not data.startswith(JPEG_OR_PNG) or is_turned(data)
    return for_pillow, _hash(data).hexdigest().encode()


def _hash(data=b""):
    return hashlib.blake2b(data, digest_size=16)


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
            _examined, [name], ("int64", "string", "string"), stateful=False
        ),
    )
    return {
        path: reason.decode()
        or File(tuple(shape.tolist()), True, digest.decode())
        for path, (shape, digest, reason) in zip(
            paths, results.as_numpy_iterator(), strict=True
        )
    }


def _examined(name):
    """Returns shape, digest and no reason, or the reason of a failure."""
    try:
        image = upright(os.fsdecode(name), 3)
        with open(name, "rb") as file:
            digest = hashlib.file_digest(file, _hash).hexdigest()
    except (MemoryError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = " ".join(reason.split()) or type(error).__name__
        return np.zeros(2, "int64"), b"", reason.encode()
    shape = np.array([image.height, image.width], "int64")
    return shape, digest.encode(), b""


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


def _some(paths, kind):
    """Returns some names of files of a kind; "" if there are none."""
    names = [f"'{path}'" for path in sorted(paths)[:MOST_NAMED]]
    if len(paths) > MOST_NAMED:
        names.append(f"and {len(paths) - MOST_NAMED} more")
    return f"{kind}: {', '.join(names)}" if names else ""
