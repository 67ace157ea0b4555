"""Data sets of TensorFlow Datasets (TFDS).

The pipelines of TFDS cannot start in the middle of a training. To resume, they
would read all earlier records again and repeat the shuffling. So images are
read by index here, and the positions of the records in TFDS's files are found
first.

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
from keras_mixer.arguments import check_local_path
from keras_mixer.arguments import check_seed
from keras_mixer.data.batches import Data
from keras_mixer.data.indexed import Images
from keras_mixer.data.indexed import check_enough
from keras_mixer.data.indexed import fits_in_memory
from keras_mixer.data.indexed import held_out_count
from keras_mixer.data.indexed import kept
from keras_mixer.data.indexed import on_host
from keras_mixer.data.preparing import on_white
from keras_mixer.optional import require
from keras_mixer.types import Path

# More images than any data set has.
UNKNOWN = 2**40


def load_tfds(
    name: str,
    image_size: int | Sequence[int],
    *,
    data_dir: Path | None = None,
    held_out: float | None = 0.2,
    seed: int = 0,
) -> Data:
    """Loads a TFDS data set, and downloads and prepares it if necessary.

    The split "validation" is used for validation, and "test" for the test. If
    only one of them exists and has labels (ImageNet's test images do not have
    labels), it is used for both. If neither exists, a part of the training
    split is held out. EXIF data is ignored, as in TFDS.

    Source: the splits and features of `tensorflow_datasets`.

    Args:
        name: Name of the data set, such as `"cifar10"`, `"cmaterdb/bangla"` or
            `"mnist:3.0.1"`.
        image_size: Positive integer, or height and width.
        data_dir: Folder of the data sets on this machine, since records are
            read from the files by their position. The default is that of TFDS.
        held_out: Float in (0, 1), the fraction of images that is held out, if
            there is no split for validation or test. If it is `None`, all
            images are to train and to test on.
        seed: Non-negative integer, the seed of the choice of held-out images.

    Returns:
        A `Data`. Gray images keep one channel. Transparent pixels are blended
        with white.

    Raises:
        ValueError: If the data set does not exist, or does not have images with
            one label each; or if an argument has a wrong value.
        OSError: If the data set is not in the folder and cannot be downloaded.
            TFDS tries to download for some minutes.
        TypeError: If an argument has the wrong type.
        ImportError: If TensorFlow or TFDS is not installed.

    Example:

    >>> from keras_mixer import data
    >>> digits = data.load_tfds("mnist", 28)  # doctest: +SKIP
    """
    check_local_path("data_dir", data_dir)
    height, width = check_image_size(image_size)
    if held_out is not None:
        held_out = check_held_out(held_out)
    seed = check_seed(seed)
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
            # Labels that are not published are all -1.
            if images.read(0)[1] >= 0:
                held.append(images)
    if not held and held_out is None:
        held = [train]
    elif not held:
        check_enough(train.count, held_out, f"in '{name}'")
        order = np.random.default_rng(seed).permutation(train.count)
        count = held_out_count(train.count, held_out)
        held = [_chosen(train, order[:count])]
        train = _chosen(train, order[count:])
    features = builder.info.features
    return Data(
        builder.info.full_name,
        tuple(features[label_key].names),
        (height, width, _channels(features[image_key])),
        (),
        train,
        test_images=held[-1],
        validation_images=held[0] if len(held) == 2 else None,
    )


def expected(name, data_dir):
    """Returns what is known of a data set before its images are downloaded.

    Returns:
        The number of classes, the most images there can be to train on, and
        the channels.
    """
    tfds = require("tensorflow_datasets")
    builder = _builder(tfds, name, data_dir)
    image_key, label_key = _supervised_keys(tfds, builder)
    features, splits = builder.info.features, builder.info.splits
    if features[label_key].num_classes is None:  # a file has the names
        _prepare(builder, name)
    count = splits["train"].num_examples if "train" in splits else UNKNOWN
    classes = features[label_key].num_classes
    return classes, count, _channels(features[image_key])


def _channels(feature):
    return 1 if feature.shape[-1] == 1 else 3


def _builder(tfds, name, data_dir):
    if not isinstance(name, str):
        raise TypeError(
            "`name` must be the name of a TFDS data set. "
            f"Received: name={name!r} (of type {type(name).__name__})"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        base = name.partition("/")[0].partition(":")[0]
        close = difflib.get_close_matches(base, known)
        raise ValueError(
            "Expected the name of a TFDS data set"
            + (f", such as {close}" if close else "")
            + f". Received: name={name!r}"
        ) from None
    except (AssertionError, ValueError) as error:
        # The configuration or version does not exist. The other lines of the
        # message list all that exist.
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            "Expected a TFDS data set with an existing configuration and "
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
        f"Received: '{builder.info.full_name}' with the features "
        f"{list(features)} and the supervised keys {keys}"
    )


def _prepare(builder, name):
    tf = require("tensorflow")
    try:
        builder.download_and_prepare()
    # Without a network, the ways to download raise different exceptions.
    except (OSError, RuntimeError, AssertionError, tf.errors.OpError) as error:
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(
            f"'{name}' is not in '{builder.data_dir}' and could not be "
            "downloaded. Connect to the network. If the files must be "
            "downloaded by hand, put them into 'downloads/manual' of the data "
            "folder. "
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
        if shape[-1] == 4:
            images = (on_white(batch).numpy() for batch in images)
        return kept(
            itertools.chain.from_iterable(images),
            on_host(np.concatenate(labels).astype("int32")),
        )
    return _record_images(tfds, builder, split, image_key, label_key)


def _record_images(tfds, builder, split, image_key, label_key):
    """Returns `Images` that are read from TFDS's files one by one."""
    tf = require("tensorflow")
    info = builder.info.splits[split]
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            "Expected a data set that TFDS prepared as 'tfrecord'. "
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
    """Returns the positions and the lengths of the records in a TFRecord file.

    A record is its length (8 bytes), a checksum (4 bytes), the data, and
    another checksum (4 bytes).
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
