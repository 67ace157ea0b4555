"""Images that are read by index.

Images whose decoded pixels are small together are decoded once and kept in
memory, as bytes.
"""

import os
import typing

import numpy as np

from keras_mixer.optional import require

# What is worked on in parallel. An image is work for a core; a batch is little
# work, and large.
IMAGES_AT_A_TIME = os.cpu_count() or 1


class Images(typing.NamedTuple):
    count: int  # type: ignore[assignment]  # `tuple.count` is not used
    # From an index to an image and a label, tensors. The image is an encoded
    # file, or pixels where `decoded` is true.
    read: typing.Callable
    decoded: bool
    # Of the files, strings; empty where images are not files.
    paths: tuple = ()


def mapped(dataset, function, at_a_time=IMAGES_AT_A_TIME):
    """A data set of what a function, which needs no AutoGraph, returns.

    In order, and without tf.data's autotuning: its thread sleeps longer and
    longer, and an iterator waits for it to wake when it is deleted. A training
    of 20 seconds was seen to end after 40.
    """
    tf = require("tensorflow")
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.map(
        # Converting takes longer than tracing.
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=at_a_time,
        deterministic=True,
    ).with_options(options)


# Images that are smaller together, decoded, are kept in memory.
MAX_BYTES_KEPT = 512 * 2**20


def fits_in_memory(size):
    """Whether decoded images of so many bytes are kept in memory."""
    return size <= MAX_BYTES_KEPT


def kept(arrays, labels):
    """Images in memory: as one array, or one behind the other."""
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
    """A tensor in the memory of the host, whatever devices there are."""
    tf = require("tensorflow")
    with tf.device("cpu"):
        return tf.constant(values)
