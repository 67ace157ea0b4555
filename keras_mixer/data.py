"""Images to train on and images held out, from folders and from TFDS.

`folders` finds the files, this module checks and counts them, and `pipeline`
makes batches of them. It reads images by index, so a training can begin
anywhere. TFDS's own pipelines cannot begin in the middle: they would have to
read all records before and to repeat their shuffling. So the files of TFDS are
read here, as records at known places.

TensorFlow decodes JPEG and PNG. Other formats, and photos that their EXIF data
says to turn, are decoded by Pillow and passed on as BMP, so that the pipeline
reads all files in one way. TensorFlow's own decoders of BMP, GIF and WebP
ignore palettes or transparency.

Images that are small together are decoded once and kept, as bytes, in memory.

TensorFlow and TFDS are imported where they are used.
"""

import difflib
import io
import itertools
import math
import os
import struct
import typing

import numpy as np

from keras_mixer import folders
from keras_mixer.checking import check_positive_int
from keras_mixer.checking import check_real
from keras_mixer.decoding import INSTALL
from keras_mixer.decoding import decode
from keras_mixer.decoding import import_tensorflow
from keras_mixer.pipeline import Data
from keras_mixer.pipeline import Images
from keras_mixer.pipeline import check_natural
from keras_mixer.pipeline import mapped
from keras_mixer.preprocessing import import_pillow
from keras_mixer.preprocessing import is_turned
from keras_mixer.preprocessing import upright

# How files begin that TensorFlow decodes as Pillow does.
JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG")

# Images that are smaller together, decoded, are kept in memory.
MAX_BYTES_KEPT = 512 * 2**20

# How many unreadable files an error names.
MOST_NAMED = 3

VERBS = {"train": "train", "validation": "validate", "test": "test"}


def load_folder(path, image_size, *, channels=3, held_out=0.2, seed=0):
    """Images in folders that are named like their classes.

    The folders of the classes lie in `path`, where a part of each class is held
    out; or in `path/train` and `path/validation`, `path/test` or both. Other
    usual names of these are known too: "training", "val", "valid", "dev",
    "testing", "eval", "evaluation", in any case. Images in subfolders of a
    class belong to the class.

    Every file that Pillow can read is used, whatever its name ends with. It is
    turned upright as its EXIF data says and brought to `channels` as
    `keras_mixer.load_image` does it: 16-bit values keep their range, and
    transparency is laid on white. Of several images in a file the first is
    taken. Every image is decoded once while it is loaded. Files that cannot be
    read, hidden files and files outside the folders of the classes are listed
    in `skipped`, each with a reason.

    Source: this library; the folders are those of Keras's
    `image_dataset_from_directory`.

    Args:
        path: Path of the folder.
        image_size: Positive integer, or height and width.
        channels: 3 for RGB, or 1 for grey.
        held_out: Float in (0, 1), the part that is held out where no folder
            holds images to validate or to test on.
        seed: Non-negative integer, of the choice of what is held out.

    Returns:
        A `Data`.

    Raises:
        OSError: If there is no such folder, or it cannot be read.
        ValueError: If it holds fewer than two classes, a class without an image
            that can be used, or held-out images of an unknown class; or if an
            argument has a wrong value.
        TypeError: If an argument has the wrong type.
        ImportError: If TensorFlow is not installed, or Pillow where it is
            needed.

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
    height, width = _check_image_size(image_size)
    _check_channels(channels)
    held_out = _check_held_out(held_out)
    seed = check_natural("seed", seed)
    import_tensorflow()
    found = folders.find(path)
    results = _examined(
        [
            file
            for part in found.parts.values()
            for files in part.values()
            for file in files
        ]
    )
    _check_every_class(found.parts["train"], results, path)
    parts = {
        part: {name: _usable(files, results) for name, files in classes.items()}
        for part, classes in found.parts.items()
    }
    if len(parts) == 1:
        parts = _split(parts["train"], held_out, seed)
    _check_every_part(parts, results, path)
    names = tuple(parts["train"])
    keep = _bytes_of(parts, channels) <= MAX_BYTES_KEPT
    train, *held = (
        _file_images(part, names, channels, keep) for part in parts.values()
    )
    skipped = [*found.skipped, *_unreadable(results)]
    return Data(
        str(path),
        names,
        (height, width, channels),
        tuple((str(file), reason) for file, reason in sorted(skipped)),
        train,
        test_images=held[-1],
        validation_images=held[0] if len(held) == 2 else None,
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


def _check_channels(channels):
    check_positive_int("channels", channels)
    if channels not in (1, 3):
        raise ValueError(
            "`channels` must be 3 (RGB) or 1 (grey). "
            f"Received: channels={channels}"
        )


class _File(typing.NamedTuple):
    """An image file that can be read."""

    shape: tuple  # height and width
    by_pillow: bool


def _examined(paths):
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
    tf = import_tensorflow()
    names = [os.fsencode(path) for path in paths]
    shapes = mapped(
        tf.data.Dataset.from_tensor_slices(
            tf.constant(names, "string")
        ).enumerate(),
        lambda place, name: (place, _shape(name)),
    ).ignore_errors()
    return {
        paths[place]: _File(tuple(shape[:2].tolist()), by_pillow=False)
        for place, shape in shapes.as_numpy_iterator()
        if shape.any()
    }


def _shape(name):
    """The shape of an image, once all of it has been read.

    Zeros if it is for Pillow.
    """
    tf = import_tensorflow()
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
    import_pillow()
    tf = import_tensorflow()
    names = [os.fsencode(path) for path in paths]
    results = mapped(
        tf.data.Dataset.from_tensor_slices(names),
        lambda name: tf.numpy_function(
            _shape_or_reason, [name], ("int64", "string"), stateful=False
        ),
    )
    return {
        path: reason.decode() or _File(tuple(shape.tolist()), by_pillow=True)
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


def _usable(paths, results):
    """`{path: _File}` of those that can be read."""
    return {
        path: results[path]
        for path in paths
        if isinstance(results[path], _File)
    }


def _unreadable(results):
    return [
        (path, result)
        for path, result in results.items()
        if isinstance(result, str)
    ]


def _some_reasons(results):
    """The end of an error: what files could not be read, and why."""
    unreadable = _unreadable(results)
    text = "".join(
        f"; '{path}': {reason}" for path, reason in unreadable[:MOST_NAMED]
    )
    more = len(unreadable) - MOST_NAMED
    return text + (f"; and {more} more files" if more > 0 else "")


def _check_every_class(train, results, path):
    unusable = {
        name: files
        for name, files in train.items()
        if not _usable(files, results)
    }
    if unusable:
        files = itertools.chain.from_iterable(unusable.values())
        raise ValueError(
            "Every class must have images that can be read. Received: none for "
            f"{list(unusable)} in '{path}'"
            + _some_reasons({file: results[file] for file in files})
        )


def _check_every_part(parts, results, path):
    for part, classes in parts.items():
        if not any(classes.values()):
            raise ValueError(
                f"There must be images to {VERBS[part]} on. "
                f"Received: none in '{path}'" + _some_reasons(results)
            )


def _split(part, held_out, seed):
    """Two parts of the images of `{class: {path: _File}}`.

    The same share of each class is held out.
    """
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
    return {"train": train, "test": test}


def _bytes_of(parts, channels):
    """The size of all images, decoded."""
    return sum(
        math.prod(file.shape) * channels
        for part in parts.values()
        for usable in part.values()
        for file in usable.values()
    )


def _file_images(part, names, channels, keep):
    tf = import_tensorflow()
    files = [item for usable in part.values() for item in usable.items()]
    encoded = [os.fsencode(path) for path, _ in files]
    by_pillow = np.array([file.by_pillow for _, file in files])
    labels = [names.index(name) for name in part for _ in part[name]]
    labels = _on_host(np.array(labels, "int32"))
    if keep:
        arrays = mapped(
            tf.data.Dataset.from_tensor_slices((encoded, by_pillow)),
            lambda *file: decode(_content(*file), channels),
        )
        images = _kept(arrays.as_numpy_iterator(), labels)
    else:
        encoded, by_pillow = _on_host(encoded), _on_host(by_pillow)

        def read(index):
            return _content(encoded[index], by_pillow[index]), labels[index]

        images = Images(len(files), read, decoded=False)
    return images._replace(paths=tuple(str(path) for path, _ in files))


def _content(name, by_pillow):
    """The bytes of a file, or of a BMP that Pillow makes of it."""
    tf = import_tensorflow()
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
