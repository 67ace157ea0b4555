"""Images that are read by index.

If all decoded images of a data set are small together, they are decoded once
and kept in memory as uint8.
"""

import math
import os
import typing

import numpy as np

from keras_mixer.optional import require

# Number of images that are processed in parallel: one per core. Fewer batches
# are mixed in parallel, since they are large and need little work.
IMAGES_AT_A_TIME = os.cpu_count() or 1


class Images(typing.NamedTuple):
    """Images with labels that are read by index."""

    count: int  # type: ignore[assignment]  # `tuple.count` is not used
    # A function from an index to the tensors of an image and a label. The image
    # is uint8 pixels if `decoded` is true, else the bytes of a file. The label
    # is the index of a class.
    read: typing.Callable
    decoded: bool
    # Paths of the files as strings; empty if the images are not files.
    paths: tuple = ()


def read_checked(images, index, classes):
    """Reads an image and its label, and refuses what would be misunderstood.

    Raises an error if pixels or labels have another dtype; and, when a label is
    read, if it is not that of a class.
    """
    tf = require("tensorflow")
    image, label = images.read(index)
    if images.decoded and image.dtype != "uint8":
        raise ValueError(
            "Pixels must be of dtype uint8, with values in [0, 255]. Convert "
            "values in [0, 1] with `tf.cast(tf.round(255 * pixels), 'uint8')`. "
            f"Received: pixels of dtype {image.dtype.name}"
        )
    if not label.dtype.is_integer:
        raise ValueError(
            "A label must be an integer, the index of a class. "
            f"Received: a label of dtype {label.dtype.name}"
        )
    is_known = tf.debugging.Assert(
        (label >= 0) & (label < classes),
        [f"Labels must be in [0, {classes}), one for each class. Received:",
         label, "for the image", index],
    )  # fmt: skip
    with tf.control_dependencies([is_known]):
        return image, tf.identity(label)


def mapped(dataset, function, at_a_time=IMAGES_AT_A_TIME):
    """Maps a function over a data set, in order and without AutoGraph.

    Autotuning of tf.data is switched off. Its thread sleeps for longer and
    longer times, and deleting an iterator waits until the thread is awake. A
    training of 20 seconds ended after 40 seconds because of this.
    """
    tf = require("tensorflow")
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.map(
        # AutoGraph would take longer than tracing.
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=at_a_time,
        deterministic=True,
    ).with_options(options)


def held_out_count(count, held_out):
    """Returns the number of images to hold out of `count`; 0 if it is all."""
    drawn = round(held_out * count)
    return drawn if drawn < count else 0


def check_enough(count, held_out, place):
    """Raises an error if no image of `count` can be held out."""
    if held_out_count(count, held_out):
        return
    # Each part then has more than half an image, which is rounded to one.
    enough = math.floor(0.5 / min(held_out, 1 - held_out)) + 1
    raise ValueError(
        f"There are no images to test on: a fraction of {held_out} is held "
        f"out, which needs at least {enough} images. "
        f"Received: at most {count} {place}"
    )


def numbered_indices(count, batch_size, positions, seed, start, drop_remainder):
    """A data set of the indices of the images of a training, in its order.

    All images are shuffled, used once, shuffled again, and so on. Each order is
    a function of the seed and of its number alone.

    Args:
        count: Integer, the number of images.
        batch_size: Integer, at most `count`.
        positions: Integers, the positions in each batch that are read.
        seed: Integer, the seed of the order.
        start: Integer, the step to begin at.
        drop_remainder: Boolean, whether the last images of each order are left
            out if they are fewer than a batch. If not, they are in a batch with
            the first images of the next order.

    Returns:
        A `tf.data.Dataset` of `(number, index)` without end. The number is that
        of the image in the training: `step * batch_size + position`.
    """
    tf = require("tensorflow")
    per_order = count
    if drop_remainder:
        per_order = count // batch_size * batch_size
    first, skipped = divmod(start * batch_size, per_order)

    @tf.autograph.experimental.do_not_convert
    def order(number):
        shuffled = tf.random.experimental.stateless_shuffle(
            tf.range(count), [seed, number]
        )
        return shuffled[tf.where(number == first, skipped, 0) : per_order]

    @tf.autograph.experimental.do_not_convert
    def numbered(step, indices):
        return tf.data.Dataset.from_tensor_slices(
            (step * batch_size + positions, tf.gather(indices, positions))
        )

    most = np.iinfo("int64").max
    batches = tf.data.Dataset.range(first, most).map(order).rebatch(batch_size)
    steps = tf.data.Dataset.range(start, most)
    return tf.data.Dataset.zip(steps, batches).flat_map(numbered)


# Decoded images are kept in memory up to this total size.
MAX_BYTES_KEPT = 512 * 2**20


def fits_in_memory(size):
    """Returns whether decoded images of `size` bytes are kept in memory."""
    return size <= MAX_BYTES_KEPT


def kept(arrays, labels):
    """Returns `Images` in memory.

    Images of the same shape are stacked. Others are concatenated as bytes.
    """
    tf = require("tensorflow")
    arrays = list(arrays)
    channels = arrays[0].shape[-1]
    shapes = np.array([array.shape for array in arrays], "int64")
    ends = np.cumsum(shapes.prod(axis=1))
    begins = ends - shapes.prod(axis=1)
    if (shapes == shapes[0]).all():
        pixels = on_host(np.stack(arrays))

        def read(index):
            return pixels[index], labels[index]

    else:
        pixels = on_host(np.concatenate([array.ravel() for array in arrays]))
        begins, ends, shapes = (on_host(x) for x in (begins, ends, shapes))

        def read(index):
            image = pixels[begins[index] : ends[index]]
            image = tf.reshape(image, shapes[index])
            return tf.ensure_shape(image, (None, None, channels)), labels[index]

    return Images(len(arrays), read, decoded=True)


def on_host(values):
    """Returns a tensor in the memory of the host, also if there is a GPU."""
    tf = require("tensorflow")
    with tf.device("cpu"):
        return tf.constant(values)
