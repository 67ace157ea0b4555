"""Data sets of TensorFlow Datasets.

TFDS's own pipelines cannot begin in the middle of a training: they would have
to read all records before, and to repeat their shuffling. Here images are read
by index, so the records of TFDS's files are located first.

TensorFlow and TFDS are imported where they are used.
"""

import difflib
import itertools
import math
import os
import struct
from collections.abc import Sequence

import numpy as np

from keras_mixer.arguments import check_held_out
from keras_mixer.arguments import check_image_size
from keras_mixer.arguments import check_natural
from keras_mixer.data.batches import Data
from keras_mixer.data.indexed import Images
from keras_mixer.data.indexed import fits_in_memory
from keras_mixer.data.indexed import kept
from keras_mixer.data.indexed import on_host
from keras_mixer.optional import require
from keras_mixer.types import Path


def load_tfds(
    name: str,
    image_size: int | Sequence[int],
    *,
    data_dir: Path | None = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> Data:
    """A data set of TFDS, which is downloaded and prepared if it is not yet.

    It is validated on the split "validation" and tested on the split "test".
    Where only one of them is there and has labels (ImageNet's test images have
    none), it is used for both; where neither is, a part of the training split
    is held out. Images are decoded as TFDS does it, without regard to EXIF
    data.

    Source: the splits and features of `tensorflow_datasets`.

    Args:
        name: Name of the data set, such as `"cifar10"`, `"cmaterdb/bangla"` or
            `"mnist:3.0.1"`.
        image_size: Positive integer, or height and width.
        data_dir: Folder of the data sets; TFDS's own by default.
        held_out: Float in (0, 1), the part that is held out where there is no
            split to validate or to test on.
        seed: Non-negative integer, of the choice of what is held out.

    Returns:
        A `Data`. Images of one channel keep it.

    Raises:
        ValueError: If there is no data set of that name, or it does not have
            images with one label each; or if an argument has a wrong value.
        OSError: If it is not there and cannot be downloaded, which TFDS tries
            for some minutes.
        TypeError: If an argument has the wrong type.
        ImportError: If TensorFlow or TFDS is not installed.

    Example:

    >>> from keras_mixer import data
    >>> digits = data.load_tfds("mnist", 28)  # doctest: +SKIP
    """
    height, width = check_image_size(image_size)
    held_out = check_held_out(held_out)
    seed = check_natural("seed", seed)
    require("tensorflow")
    tfds = require("tensorflow_datasets")
    builder = _builder(tfds, name, data_dir)
    image_key, label_key = _supervised_keys(tfds, builder)
    _prepare(builder, name)
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(
            f"'{name}' must have a split 'train'. "
            f"Received: the splits {sorted(splits)}"
        )
    train = _split_images(tfds, builder, "train", image_key, label_key)
    held = []
    for split in ("validation", "test"):
        if split in splits and splits[split].num_examples:
            images = _split_images(tfds, builder, split, image_key, label_key)
            # Where labels are secret, they are all -1.
            if images.read(0)[1] >= 0:
                held.append(images)
    if not held:
        order = np.random.default_rng(seed).permutation(train.count)
        count = round(held_out * train.count)
        held = [_chosen(train, order[:count])]
        train = _chosen(train, order[count:])
    features = builder.info.features
    channels = 1 if features[image_key].shape[-1] == 1 else 3
    return Data(
        builder.info.full_name,
        tuple(features[label_key].names),
        (height, width, channels),
        (),
        train,
        test_images=held[-1],
        validation_images=held[0] if len(held) == 2 else None,
    )


def _builder(tfds, name, data_dir):
    if not isinstance(name, str):
        raise TypeError(
            "`name` must be the name of a data set of TFDS. "
            f"Received: name={name!r} (of type {type(name).__name__})"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        base = name.partition("/")[0].partition(":")[0]
        close = difflib.get_close_matches(base, known)
        raise ValueError(
            "Expected the name of a data set of TFDS"
            + (f", such as {close}" if close else "")
            + f". Received: name={name!r}"
        ) from None
    except (AssertionError, ValueError) as error:
        # A configuration or a version that does not exist; more lines list all.
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            "Expected a data set of TFDS with an existing configuration and "
            f"version. Received: name={name!r}: {first}"
        ) from error


def _supervised_keys(tfds, builder):
    features, keys = builder.info.features, builder.info.supervised_keys
    if keys is not None and len(keys) == 2 and set(keys) <= set(features):
        image, label = (features[key] for key in keys)
        if (
            isinstance(image, tfds.features.Image)
            and image.dtype == np.uint8
            and isinstance(label, tfds.features.ClassLabel)
        ):
            return keys
    raise ValueError(
        "Expected a data set of images (of 8 bits) with one label each. "
        f"Received: '{builder.info.full_name}' with {list(features)}, of which "
        f"to train on: {keys}"
    )


def _prepare(builder, name):
    tf = require("tensorflow")
    try:
        builder.download_and_prepare()
    # What a missing network makes of the many ways to download.
    except (OSError, RuntimeError, AssertionError, tf.errors.OpError) as error:
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(
            f"'{name}' is not in '{builder.data_dir}' and could not be "
            "downloaded. Connect to the network, or put what has to be "
            "downloaded by hand into 'downloads/manual' of the data folder. "
            f"Received: {first}"
        ) from error


def _split_images(tfds, builder, split, image_key, label_key):
    count = builder.info.splits[split].num_examples
    shape = builder.info.features[image_key].shape
    if None not in shape and fits_in_memory(count * math.prod(shape)):
        dataset = builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        batches = dataset.batch(1000).as_numpy_iterator()
        images, labels = zip(
            *((batch[image_key], batch[label_key]) for batch in batches),
            strict=True,
        )
        images = itertools.chain.from_iterable(images)
        return kept(
            (image[..., :3] for image in images),
            on_host(np.concatenate(labels).astype("int32")),
        )
    return _record_images(tfds, builder, split, image_key, label_key)


def _record_images(tfds, builder, split, image_key, label_key):
    """Images that are read from TFDS's files when they are asked for."""
    tf = require("tensorflow")
    info = builder.info.splits[split]
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            "Expected a data set that TFDS has prepared as 'tfrecord'. "
            f"Received: '{builder.info.full_name}' as "
            f"'{builder.info.file_format.value}'"
        )
    paths = [os.fspath(path) for path in info.filepaths]
    places = [_record_places(path) for path in paths]
    shards = np.repeat(np.arange(len(paths)), [len(p) for p in places])
    places = np.concatenate(places)
    decoders = {image_key: tfds.decode.SkipDecoding()}

    def record(index):
        begin, length = places[index]
        with open(paths[shards[index]], "rb", buffering=0) as file:
            file.seek(begin)
            return file.read(length)

    def read(index):
        data = tf.numpy_function(record, [index], tf.string, stateful=False)
        example = builder.info.features.deserialize_example(
            tf.ensure_shape(data, ()), decoders=decoders
        )
        return example[image_key], tf.cast(example[label_key], "int32")

    return Images(len(places), read, decoded=False)


def _record_places(path):
    """Where the records of a TFRecord file begin, and their lengths.

    A record is its length (8 bytes) and a checksum (4), then the data and a
    checksum (4).
    """
    places = []
    with open(path, "rb", buffering=0) as file:
        while header := file.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            places.append((file.tell(), length))
            file.seek(length + 4, os.SEEK_CUR)
    return np.array(places, "int64").reshape(-1, 2)


def _chosen(images, indices):
    indices = on_host(indices)
    return images._replace(
        count=len(indices), read=lambda index: images.read(indices[index])
    )
