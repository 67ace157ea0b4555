"""Augmentation of training images, as functions of pixels and random numbers.

A training must be resumable at any step. So each function here takes its random
numbers, or their seed, as an argument, and always returns the same result for
them. The layers of Keras and keras-cv are different: they use random number
generators with a state. What an image gets then depends on the number of images
before it, and on the order of threads.

MixUp, CutMix and erasing are implemented here. Keras's layers for them also run
in tf.data on every backend (`layer.backend.set_backend("tensorflow")`), but
they draw from a generator with a state, like those of keras-cv.

TensorFlow is imported where it is used.
"""

import math
import typing

import numpy as np

from keras_mixer.data import rand_augment
from keras_mixer.optional import require


def image_changes(augmentation, seeds):
    """Yields functions of an image and its number, in the order to apply."""
    tf = require("tensorflow")

    def at_random(share, seed, change):
        def changed(image, number):
            image = to_bytes(image)
            chance = tf.random.stateless_uniform([], (seed, number))
            return tf.cond(
                chance < share, lambda: change(image, number), lambda: image
            )

        return changed

    if augmentation.flip:
        yield at_random(0.5, seeds.flip, lambda image, _: image[:, ::-1])
    if augmentation.randaugment:
        num_operations, magnitude = augmentation.randaugment
        augment = rand_augment.rand_augment(num_operations, magnitude)
        shape = (num_operations, rand_augment.DRAWS_PER_OPERATION)

        def rand_augmented(image, number):
            seed = (seeds.operations, number)
            draws = tf.random.stateless_uniform(shape, seed)
            return augment(tf.cast(image, "float32"), draws)

        yield rand_augmented
    if augmentation.erasing:
        yield at_random(
            augmentation.erasing,
            seeds.chance,
            lambda image, number: erase(image, (seeds.erasing, number)),
        )


class Seeds(typing.NamedTuple):
    """One seed for each purpose, so that the random numbers differ."""

    order: int
    crop: int
    flip: int
    operations: int
    chance: int
    erasing: int
    choice: int
    mixing: int

    @classmethod
    def of(cls, seed):
        state = np.random.SeedSequence(seed).generate_state(len(cls._fields))
        return cls(*(int(word) for word in state))


def batch_mixing(augmentation, seeds, batch_size):
    """Returns a function that mixes the images and labels of a batch."""
    tf = require("tensorflow")
    mixup = augmentation.mixup if augmentation else 0
    cutmix = augmentation.cutmix if augmentation else 0

    def mix(images, labels, numbers):
        step = numbers[-1] // batch_size
        seed = (seeds.mixing, step)

        def mixed_up():
            return mix_up(images, labels, mixup, seed)

        def cut_and_mixed():
            return cut_mix(images, labels, cutmix, seed)

        if mixup and cutmix:
            chance = tf.random.stateless_uniform([], (seeds.choice, step))
            return tf.cond(chance < 0.5, mixed_up, cut_and_mixed)
        if mixup:
            return mixed_up()
        if cutmix:
            return cut_and_mixed()
        return images, labels

    return mix


# Random erasing: the area and the aspect ratio of a box, and the noise in it.
# The noise is N(0, 1) for pixels that are normalized as for ImageNet.
ERASED_AREA = (0.02, 1 / 3)


ERASED_RATIO = (0.3, 1 / 0.3)


NOISE_MEAN = 255 * 0.449


NOISE_STD = 255 * 0.226


def erase(image, seed):
    """Fills a random box of an image with noise.

    Source: Random Erasing (arXiv 1708.04896) with noise per pixel, as in the
    training of ResMLP: `--reprob 0.25 --remode pixel` of
    facebookresearch/deit.

    Args:
        image: Uint8 tensor of shape `(height, width, channels)`.
        seed: Two integers.

    Returns:
        A tensor of the same shape.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.data.augmenting import erase
    >>> erase(tf.zeros((16, 24, 3), "uint8"), (0, 1)).shape.as_list()
    [16, 24, 3]
    """
    tf = require("tensorflow")

    area, ratio, *place = tf.unstack(
        tf.random.stateless_uniform([4], seed), num=4
    )
    height, width, channels = image.shape
    low, high = (math.log(bound) for bound in ERASED_RATIO)
    ratio = tf.exp(low + (high - low) * ratio)
    low, high = (share * height * width for share in ERASED_AREA)
    area = low + (high - low) * area
    sides = (tf.sqrt(area * ratio), tf.sqrt(area / ratio))
    box = _box_within((height, width), sides, place)
    top, bottom, left, right = box
    # `fold_in`: the same seed would give the random numbers above again.
    noise = tf.random.stateless_normal(
        (1, bottom - top, right - left, channels),
        tf.random.fold_in(seed, 1),
        NOISE_MEAN,
        NOISE_STD,
    )
    return _pasted(image[None], to_bytes(noise), box)[0]


def mix_up(images, labels, alpha, seed):
    """Mixes each image and its label with the previous image.

    Source: `get_mixup` of google-research/big_vision. All images of a batch
    have the same weight. It is drawn from Beta(alpha, alpha), and is at least
    0.5.

    Args:
        images: Uint8 tensor of shape `(1 + batch, height, width, channels)`.
            The first image is the one before the batch.
        labels: Float32 tensor of shape `(1 + batch, classes)`.
        alpha: Positive number.
        seed: Two integers.

    Returns:
        Images and labels of the batch.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.data.augmenting import mix_up
    >>> images, labels = mix_up(
    ...     tf.zeros((4, 6, 5, 3), "uint8"), tf.eye(4, 2), 0.5, seed=(0, 1))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([3, 6, 5, 3], [3, 2])
    """
    tf = require("tensorflow")

    weight = _beta(alpha, seed)
    weight = tf.maximum(weight, 1 - weight)

    def mixed(pair):
        image, before = (tf.cast(part, "float32") for part in pair)
        return to_bytes(weight * image + (1 - weight) * before)

    # One image at a time fits into the cache of the processor: five times as
    # fast as a whole batch.
    signature = tf.TensorSpec(images.shape[1:], "uint8")
    images = tf.map_fn(
        mixed, (images[1:], images[:-1]), fn_output_signature=signature
    )
    return images, weight * labels[1:] + (1 - weight) * labels[:-1]


def cut_mix(images, labels, alpha, seed):
    """Replaces a box of each image by pixels of the previous image.

    Source: CutMix (arXiv 1905.04899), algorithm A1. The center of the box is a
    random point of the image, and the box is clipped to the image. The labels
    are mixed in proportion to the pixels. All images of a batch have the same
    box.

    Args:
        images: Uint8 tensor of shape `(1 + batch, height, width, channels)`.
            The first image is the one before the batch.
        labels: Float32 tensor of shape `(1 + batch, classes)`.
        alpha: Positive number, the parameter of the Beta distribution of the
            fraction of pixels that stay.
        seed: Two integers.

    Returns:
        Images and labels of the batch.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.data.augmenting import cut_mix
    >>> images, labels = cut_mix(
    ...     tf.zeros((4, 6, 5, 3), "uint8"), tf.eye(4, 2), 1.0, seed=(0, 1))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([3, 6, 5, 3], [3, 2])
    """
    tf = require("tensorflow")

    side = tf.sqrt(1 - _beta(alpha, seed))
    place = tf.random.stateless_uniform([2], tf.random.fold_in(seed, 1))
    size = images.shape[1:3]
    box = _box_around(
        size, [side * length for length in size], tf.unstack(place)
    )
    top, bottom, left, right = box
    patches = images[:-1, top:bottom, left:right]
    share = tf.cast((bottom - top) * (right - left), "float32") / math.prod(
        size
    )
    labels = share * labels[:-1] + (1 - share) * labels[1:]
    return _pasted(images[1:], patches, box), labels


def _beta(alpha, seed):
    tf = require("tensorflow")

    draws = tf.random.stateless_gamma([2], seed, alpha)
    return draws[0] / (draws[0] + draws[1])


def _box_within(size, sides, place):
    """Returns top, bottom, left and right of a box within an image."""
    tf = require("tensorflow")

    box = []
    for length, side, position in zip(size, sides, place, strict=True):
        side = tf.minimum(tf.cast(side, "int32"), length)
        room = tf.cast(length - side + 1, "float32")
        start = tf.cast(position * room, "int32")
        box += [start, start + side]
    return box


def _box_around(size, sides, place):
    """Returns the same for a box around a point, clipped to the image."""
    tf = require("tensorflow")

    box = []
    for length, side, position in zip(size, sides, place, strict=True):
        side = tf.cast(side, "int32")
        start = tf.cast(position * length, "int32") - side // 2
        box += [tf.maximum(start, 0), tf.minimum(start + side, length)]
    return box


def _pasted(images, patches, box):
    """Replaces a box by slices and `concat`: much faster than a mask."""
    tf = require("tensorflow")

    top, bottom, left, right = box
    rows = images[:, top:bottom]
    rows = tf.concat([rows[:, :, :left], patches, rows[:, :, right:]], axis=2)
    pasted = tf.concat([images[:, :top], rows, images[:, bottom:]], axis=1)
    return tf.ensure_shape(pasted, images.shape)


def to_bytes(image):
    """Rounds and clips pixels to uint8. Images of uint8 are not changed.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.data.augmenting import to_bytes
    >>> to_bytes(tf.constant([-3.0, 1.6, 300.0])).numpy().tolist()
    [0, 2, 255]
    """
    tf = require("tensorflow")

    if image.dtype == "uint8":
        return image
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), "uint8")
