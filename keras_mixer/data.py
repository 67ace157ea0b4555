"""Images to train on and images held out, from folders and from TFDS.

Images are found, checked and counted here; `pipeline` makes batches of them. It
reads them by index, and so a training can begin anywhere. TFDS's own pipelines
cannot begin in the middle: what lies before would have to be read, and its
shuffling to be repeated. So its files are used as what they are, records at
known places.

Images that together are small are decoded once and kept, as bytes, in memory.

TensorFlow and TFDS are imported where they are used.
"""

import difflib
import itertools
import math
import os
import pathlib
import struct

import numpy as np

from keras_mixer.checking import check_positive_int
from keras_mixer.checking import check_real
from keras_mixer.decoding import INSTALL
from keras_mixer.decoding import decode
from keras_mixer.decoding import import_tensorflow
from keras_mixer.pipeline import Data
from keras_mixer.pipeline import Images
from keras_mixer.pipeline import check_natural
from keras_mixer.pipeline import mapped

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

# Images that are smaller together, decoded, are kept in memory.
MAX_BYTES_KEPT = 512 * 2**20


def load_folder(path, image_size, *, held_out=0.2, seed=0):
    """Images in folders that are named like their classes.

    The folders lie in `path/train` and `path/test`, or `path/val`; or all of
    them in `path`, where a part of each class is held out. Every image is
    decoded once while it is loaded: those that are truncated or unreadable are
    skipped, and listed in `skipped`. JPEG, PNG, GIF (the first image) and BMP
    are read, and brought to three channels; they are not turned as EXIF data
    says, which `load_image` does.

    Source: this library; the folders are those of Keras's
    `image_dataset_from_directory`.

    Args:
        path: Path of the folder.
        image_size: Positive integer, or height and width.
        held_out: Float in (0, 1), the part that is held out where there is no
            test folder.
        seed: Non-negative integer, of the choice of what is held out.

    Returns:
        A `Data`.

    Raises:
        OSError: If there is no such folder, or it cannot be read.
        ValueError: If it holds fewer than two classes, a class without an image
            that can be used, or test images of an unknown class; or if an
            argument has a wrong value.
        TypeError: If an argument has the wrong type.
        ImportError: If TensorFlow is not installed.

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
    ...     data.load_folder(folder, image_size=(16, 24)).class_names
    ('navy', 'teal')
    """
    height, width = _check_image_size(image_size)
    held_out = _check_held_out(held_out)
    seed = check_natural("seed", seed)
    import_tensorflow()
    path = pathlib.Path(path)
    if not path.is_dir():
        raise NotADirectoryError(
            "Expected a folder with a folder of images for each class. "
            f"Received: '{path}', which is no folder"
        )
    train_folder, test_folder = _parts(path)
    files = _files_of_classes(train_folder)
    names = tuple(files)
    found = [files]
    if test_folder is not None:
        found.append(_files_of_test(test_folder, names))
    *shapes, skipped = _checked(found)
    if test_folder is None:
        shapes = _split(shapes[0], held_out, seed)
    for part, what in zip(shapes, ("train on", "test on"), strict=True):
        if not any(part.values()):
            raise ValueError(
                f"There must be images to {what}. Received: none in '{path}'"
            )
    _check_every_class(shapes[0], path, skipped)
    keep = (
        sum(
            math.prod(shape[:2]) * 3
            for part in shapes
            for usable in part.values()
            for shape in usable.values()
        )
        <= MAX_BYTES_KEPT
    )
    train, test = (_file_images(part, names, keep) for part in shapes)
    return Data(
        str(path), names, (height, width, 3), tuple(skipped), train, test
    )


def _check_image_size(image_size):
    if isinstance(image_size, (tuple, list)):
        if len(image_size) != 2:
            raise ValueError(
                "`image_size` must be a positive integer, or height and width. "
                f"Received: image_size={image_size}"
            )
        return tuple(check_positive_int("image_size", s) for s in image_size)
    return (check_positive_int("image_size", image_size),) * 2


def _check_held_out(held_out):
    check_real("held_out", held_out)
    if not 0 < held_out < 1:
        raise ValueError(
            "`held_out` must be in (0, 1): it is the part of the images that "
            f"is not trained on. Received: held_out={held_out}"
        )
    return held_out


def _parts(path):
    """Folder to train on, and folder to test on or `None`."""
    if not (path / "train").is_dir():
        return path, None
    for name in ("test", "val"):
        if (path / name).is_dir():
            return path / "train", path / name
    if len(_folders(path)) > 1:
        return path, None  # "train" is a class, beside others
    return path / "train", None


def _folders(path):
    return sorted(
        child.name
        for child in path.iterdir()
        if child.is_dir() and not child.name.startswith(".")
    )


def _files(folder):
    return sorted(
        child
        for child in folder.iterdir()
        if child.suffix.lower() in SUFFIXES and not child.name.startswith(".")
    )


def _files_of_classes(folder):
    """`{class: files}`."""
    names = _folders(folder)
    if len(names) < 2:
        raise ValueError(
            f"'{folder}' must hold a folder of images for each class, and two "
            f"classes at least. Received: the folders {names}"
        )
    files = {name: _files(folder / name) for name in names}
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise ValueError(
            f"Every class must have images ({', '.join(SUFFIXES)}) in its "
            f"folder. Received: none for {empty} in '{folder}'"
        )
    return files


def _files_of_test(folder, names):
    unknown = sorted(set(_folders(folder)) - set(names))
    if unknown:
        raise ValueError(
            "The classes to test on must be among those to train on. "
            f"Received: {unknown} in '{folder}' alone"
        )
    return {
        name: _files(folder / name)
        for name in names
        if (folder / name).is_dir()
    }


def _checked(parts):
    """`{class: {file: shape}}` of each part, and what was skipped."""
    paths = [
        path for part in parts for found in part.values() for path in found
    ]
    results = _shapes_or_reasons(paths)
    usable = [
        {
            name: {
                path: results[path]
                for path in found
                if not isinstance(results[path], str)
            }
            for name, found in part.items()
        }
        for part in parts
    ]
    skipped = [
        (str(path), result)
        for path, result in results.items()
        if isinstance(result, str)
    ]
    return [*usable, skipped]


def _shapes_or_reasons(paths):
    """`{path: shape}` of images, or why one cannot be read."""
    tf = import_tensorflow()
    names = [str(path) for path in paths]
    shapes = mapped(
        tf.data.Dataset.from_tensor_slices(names).enumerate(),
        lambda place, name: (place, _shape(name)),
    ).ignore_errors()
    results = {
        paths[place]: tuple(shape.tolist())
        for place, shape in shapes.as_numpy_iterator()
    }
    return {
        path: results[path] if path in results else _reason(name)
        for path, name in zip(paths, names, strict=True)
    }


def _shape(name):
    """The shape of an image, once all of it has been read."""
    tf = import_tensorflow()
    data = tf.io.read_file(name)

    def jpeg():
        # All of it: decoded to an eighth, a file may end too early unseen.
        return tf.shape(tf.io.decode_jpeg(data, 3, fancy_upscaling=False))

    return tf.cond(tf.io.is_jpeg(data), jpeg, lambda: tf.shape(decode(data, 3)))


def _reason(name):
    """What TensorFlow says of a file that it cannot read."""
    tf = import_tensorflow()
    try:
        _shape(name)
    except tf.errors.OpError as error:
        # Without where in TensorFlow it was.
        message = (error.message or type(error).__name__).partition("}} ")
        return (message[2] or message[0]).partition(" [Op:")[0]
    return "could not be read at first"


def _check_every_class(part, path, skipped):
    unusable = [name for name, usable in part.items() if not usable]
    if unusable:
        raise ValueError(
            "Every class must have images that can be read. Received: none for "
            f"{unusable} in '{path}'"
            + (f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else "")
        )


def _split(part, held_out, seed):
    """Two parts of `{class: {file: shape}}`, the same share of each class."""
    train, test = {}, {}
    rng = np.random.default_rng(seed)
    for name, usable in part.items():
        paths = list(usable)
        drawn = set(
            rng.permutation(len(paths))[: round(held_out * len(paths))].tolist()
        )
        if len(drawn) == len(paths):
            drawn = set()
        train[name], test[name] = {}, {}
        for place, path in enumerate(paths):
            chosen = test if place in drawn else train
            chosen[name][path] = usable[path]
    return train, test


def _file_images(part, names, keep):
    tf = import_tensorflow()
    paths = [str(path) for usable in part.values() for path in usable]
    labels = [names.index(name) for name in part for _ in part[name]]
    labels = _on_host(np.array(labels, "int32"))
    if keep:
        files = mapped(
            tf.data.Dataset.from_tensor_slices(paths),
            lambda path: decode(tf.io.read_file(path), 3),
        )
        return _kept(files.as_numpy_iterator(), labels)
    paths = _on_host(paths)

    def read(index):
        return tf.io.read_file(paths[index]), labels[index]

    return Images(len(labels), read, decoded=False)


def _kept(arrays, labels):
    """Images in memory: as one array, or one behind the other."""
    tf = import_tensorflow()
    arrays = list(arrays)
    channels = arrays[0].shape[-1]
    shapes = np.array([array.shape for array in arrays], "int64")
    ends = np.cumsum(shapes.prod(axis=1))
    begins = ends - shapes.prod(axis=1)
    if (shapes == shapes[0]).all():
        pixels = _on_host(np.stack(arrays))

        def read(index):
            return pixels[index], labels[index]

    else:
        pixels = _on_host(np.concatenate([array.ravel() for array in arrays]))
        begins, ends, shapes = (_on_host(x) for x in (begins, ends, shapes))

        def read(index):
            image = pixels[begins[index] : ends[index]]
            image = tf.reshape(image, shapes[index])
            return tf.ensure_shape(image, (None, None, channels)), labels[index]

    return Images(len(arrays), read, decoded=True)


def _on_host(values):
    """A tensor in the memory of the host, whatever devices there are."""
    tf = import_tensorflow()
    with tf.device("cpu"):
        return tf.constant(values)


def load_tfds(name, image_size, *, data_dir=None, held_out=0.2, seed=0):
    """A data set of TFDS, which is downloaded and prepared if it is not yet.

    It is tested on the split "test", or "validation" where the test images have
    no labels (as ImageNet's) or there are none; where there is neither, a part
    of the training split is held out.

    Source: the splits and features of `tensorflow_datasets`.

    Args:
        name: Name of the data set, such as `"cifar10"`, `"cmaterdb/bangla"` or
            `"mnist:3.0.1"`.
        image_size: Positive integer, or height and width.
        data_dir: Folder of the data sets; TFDS's own by default.
        held_out: Float in (0, 1), the part that is held out where there is no
            split to test on.
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
    height, width = _check_image_size(image_size)
    held_out = _check_held_out(held_out)
    seed = check_natural("seed", seed)
    import_tensorflow()
    tfds = _tfds()
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
    test = None
    for split in ("test", "validation"):
        if split in splits and splits[split].num_examples:
            images = _split_images(tfds, builder, split, image_key, label_key)
            # Where labels are secret, they are all -1.
            if images.read(0)[1] >= 0:
                test = images
                break
    if test is None:
        order = np.random.default_rng(seed).permutation(train.count)
        held = round(held_out * train.count)
        train, test = _chosen(train, order[held:]), _chosen(train, order[:held])
    features = builder.info.features
    channels = 1 if features[image_key].shape[-1] == 1 else 3
    return Data(
        builder.info.full_name,
        tuple(features[label_key].names),
        (height, width, channels),
        (),
        train,
        test,
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
    tf = import_tensorflow()
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
    if None not in shape and count * math.prod(shape) <= MAX_BYTES_KEPT:
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
        return _kept(
            (image[..., :3] for image in images),
            _on_host(np.concatenate(labels).astype("int32")),
        )
    return _record_images(tfds, builder, split, image_key, label_key)


def _record_images(tfds, builder, split, image_key, label_key):
    """Images that are read from TFDS's files when they are asked for."""
    tf = import_tensorflow()
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
    indices = _on_host(indices)
    return images._replace(
        count=len(indices), read=lambda index: images.read(indices[index])
    )


def _tfds():
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(INSTALL.format("tensorflow-datasets")) from error
    return tfds
