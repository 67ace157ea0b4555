"""Images in folders that have the names of their classes.

`finding` lists the files, and `examining` checks which of them can be read.
This module splits them into images to train on and held-out images.

TensorFlow decodes JPEG and PNG. Pillow decodes other formats, since
TensorFlow's decoders of BMP, GIF and WebP ignore palettes or transparency. It
also decodes photos that must be rotated as in their EXIF data. The result is
passed on as BMP, so that all files are then decoded in the same way.

TensorFlow is imported where it is used.
"""

import io
import itertools
import math
import os
from collections.abc import Sequence

import numpy as np

from keras_mixer.arguments import check_channels
from keras_mixer.arguments import check_held_out
from keras_mixer.arguments import check_image_size
from keras_mixer.arguments import check_local_path
from keras_mixer.arguments import check_seed
from keras_mixer.data import finding
from keras_mixer.data.batches import Data
from keras_mixer.data.examining import ImageIndex
from keras_mixer.data.examining import examined
from keras_mixer.data.examining import some_reasons
from keras_mixer.data.examining import unreadable_of
from keras_mixer.data.examining import usable_of
from keras_mixer.data.indexed import Images
from keras_mixer.data.indexed import check_enough
from keras_mixer.data.indexed import fits_in_memory
from keras_mixer.data.indexed import held_out_count
from keras_mixer.data.indexed import kept
from keras_mixer.data.indexed import mapped
from keras_mixer.data.indexed import on_host
from keras_mixer.data.photos import upright
from keras_mixer.data.preparing import decode
from keras_mixer.optional import require
from keras_mixer.types import Path

VERBS = {"train": "train", "validation": "validate", "test": "test"}


def load_folder(
    path: Path | finding.Found,
    image_size: int | Sequence[int],
    *,
    channels: int = 3,
    held_out: float | None = 0.2,
    seed: int = 0,
    index: ImageIndex | None = None,
) -> Data:
    """Loads images from folders that have the names of their classes.

    The folders of the classes are in one of two places:

    - in `path`: a part of each class is held out;
    - in `path/train`, and in `path/validation`, `path/test` or both. The names
      "training", "val", "valid", "dev", "testing", "eval" and "evaluation" are
      recognized too, in lower or upper case.

    Images in subfolders of a class belong to the class.

    Every file that Pillow can read is used, with any file name extension. As in
    `keras_mixer.load_image`, images are rotated as in their EXIF data and
    converted to `channels`, 16-bit values are scaled to 8 bits, and transparent
    pixels are blended with white. If a file has several images, the first is
    used. Each image is decoded once here, to check it. Files that cannot be
    read, hidden files and files outside the folders of the classes are listed
    in `skipped`, each with a reason.

    Source: the structure of the folders is that of Keras's
    `image_dataset_from_directory`.

    Args:
        path: Path of the folder; or the result of `finding.find`, so that the
            folder is not searched again.
        image_size: Positive integer, or height and width.
        channels: 3 for RGB, or 1 for gray.
        held_out: Float in (0, 1), the fraction of images that is held out, if
            there is no folder of validation or test images. If it is `None`,
            all images are to train and to test on.
        seed: Non-negative integer, the seed of the choice of held-out images.
        index: Optional `ImageIndex`. Files in it are not decoded to check them.
            New files are added to it.

    Returns:
        A `Data`.

    Raises:
        OSError: If the folder does not exist or cannot be read.
        ValueError: If there are fewer than two classes, a class without an
            image that can be read, or held-out images of an unknown class; or
            if an argument has a wrong value.
        TypeError: If an argument has the wrong type.
        ImportError: If TensorFlow is not installed, or Pillow if it is needed.

    Example:

    >>> import pathlib
    >>> import tempfile
    >>> from PIL import Image
    >>> from keras_mixer import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i, color in enumerate(["teal", "navy"] * 5):
    ...         path = pathlib.Path(folder, color, f"{i}.png")
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (40, 30), color).save(path)
    ...     photos = data.load_folder(folder, image_size=(16, 24))
    >>> photos.class_names, photos.train_count, len(photos.test_paths)
    (('navy', 'teal'), 8, 2)
    """
    check_local_path("path", path)
    height, width = check_image_size(image_size)
    check_channels(channels)
    if held_out is not None:
        held_out = check_held_out(held_out)
    seed = check_seed(seed)
    require("tensorflow")
    found = path if isinstance(path, finding.Found) else finding.find(path)
    path, names = found.folder, tuple(found.parts["train"])
    classes = [
        files for part in found.parts.values() for files in part.values()
    ]
    results = examined(
        list(itertools.chain.from_iterable(classes)),
        ImageIndex() if index is None else index,
    )
    _check_every_class(found.parts["train"], results, path)
    parts = {
        part: {
            name: usable_of(files, results) for name, files in classes.items()
        }
        for part, classes in found.parts.items()
    }
    if len(parts) == 1 and held_out is not None:
        most = max(map(len, parts["train"].values()))
        check_enough(most, held_out, f"in a class of '{path}'")
        parts = _split(parts["train"], held_out, seed)
    _check_every_part(parts, results, path)
    keep = fits_in_memory(_bytes_of(parts, channels))
    train, *held = (
        _file_images(part, names, channels, keep) for part in parts.values()
    )
    skipped = [*found.skipped, *unreadable_of(results)]
    return Data(
        str(path),
        names,
        (height, width, channels),
        tuple((str(file), reason) for file, reason in sorted(skipped)),
        train,
        test_images=held[-1] if held else train,
        validation_images=held[0] if len(held) == 2 else None,
    )


def _check_every_class(train, results, path):
    unusable = {
        name: files
        for name, files in train.items()
        if not usable_of(files, results)
    }
    if unusable:
        files = itertools.chain.from_iterable(unusable.values())
        raise ValueError(
            "Every class must have images that can be read. Received: no "
            f"images for {list(unusable)} in '{path}'"
            + some_reasons({file: results[file] for file in files})
        )


def _check_every_part(parts, results, path):
    for part, classes in parts.items():
        if not any(classes.values()):
            raise ValueError(
                f"There must be images to {VERBS[part]} on. "
                f"Received: no images in '{path}'" + some_reasons(results)
            )


def _split(part, held_out, seed):
    """Splits `{class: {path: File}}` into images to train and to test on.

    The same fraction of each class is held out.
    """
    train, test = {}, {}
    rng = np.random.default_rng(seed)
    for name, usable in part.items():
        paths = list(usable)
        count = held_out_count(len(paths), held_out)
        drawn = set(rng.permutation(len(paths))[:count].tolist())
        train[name], test[name] = {}, {}
        for place, path in enumerate(paths):
            chosen = test if place in drawn else train
            chosen[name][path] = usable[path]
    return {"train": train, "test": test}


def _bytes_of(parts, channels):
    """Returns the number of bytes of all decoded images."""
    return sum(
        math.prod(file.shape) * channels
        for part in parts.values()
        for usable in part.values()
        for file in usable.values()
    )


def _file_images(part, names, channels, keep):
    tf = require("tensorflow")
    files = [item for usable in part.values() for item in usable.items()]
    encoded = [os.fsencode(path) for path, _ in files]
    by_pillow = np.array([file.by_pillow for _, file in files])
    labels = [names.index(name) for name in part for _ in part[name]]
    labels = on_host(np.array(labels, "int32"))
    if keep:
        arrays = mapped(
            tf.data.Dataset.from_tensor_slices((encoded, by_pillow)),
            lambda *file: decode(_content(*file), channels),
        )
        images = kept(arrays.as_numpy_iterator(), labels)
    else:
        encoded, by_pillow = on_host(encoded), on_host(by_pillow)

        def read(index):
            return _content(encoded[index], by_pillow[index]), labels[index]

        images = Images(len(files), read, decoded=False)
    return images._replace(paths=tuple(str(path) for path, _ in files))


def _content(name, by_pillow):
    """Returns the bytes of a file, or of a BMP that Pillow converted it to."""
    tf = require("tensorflow")
    return tf.cond(
        by_pillow,
        lambda: tf.ensure_shape(
            tf.numpy_function(_as_bmp, [name], "string", stateful=False), ()
        ),
        lambda: tf.io.read_file(name),
    )


def _as_bmp(name):
    file = io.BytesIO()
    upright(os.fsdecode(name), 3).save(file, "bmp")
    return file.getvalue()
