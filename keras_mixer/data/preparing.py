"""From the number of an image to its pixels and its label.

Pixels are bytes in [0, 255] until they are in the network: a batch of floats
takes four times as long to copy to a device.
"""

from keras_mixer.data.augmenting import image_changes
from keras_mixer.data.augmenting import to_bytes
from keras_mixer.data.cropping import central
from keras_mixer.data.cropping import decode_inception_crop
from keras_mixer.data.cropping import inception_crop
from keras_mixer.data.cropping import shifted
from keras_mixer.data.decoding import decode
from keras_mixer.data.indexed import read_checked
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.optional import require

CROPS = ("inception", "pad", "resize")


def evaluation_preparation(
    images, image_shape, classes, crop_ratio, interpolation
):
    """A function from an index to an image and its one-hot label.

    Args:
        images: The `Images`.
        image_shape: `(height, width, channels)` of what is returned.
        classes: Integer, the number of classes.
        crop_ratio: As `central` takes it.
        interpolation: As `central` takes it.
    """
    tf = require("tensorflow")
    size = image_shape[:2]

    def prepare(index):
        pixels, label = _decoded(images, index, image_shape, classes)
        image = central(pixels, size, crop_ratio, interpolation)
        return to_bytes(image), tf.one_hot(label, classes)

    return prepare


def training_preparation(images, image_shape, classes, augmentation, seeds):
    """A function from a number and an index to image, label and number.

    `number` is the index of the image in the training. It determines all random
    numbers for the image.

    Args:
        images: The `Images`.
        image_shape: `(height, width, channels)` of what is returned.
        classes: Integer, the number of classes.
        augmentation: A `keras_mixer.recipes.Augmentation`, or `None`.
        seeds: The `Seeds`.
    """
    tf = require("tensorflow")
    crop = augmentation and augmentation.crop
    cropped = _cropping(images, image_shape, classes, crop, seeds)
    changes = list(image_changes(augmentation, seeds)) if augmentation else []

    def prepare(number, index):
        image, label = cropped(number, index)
        image = tf.ensure_shape(image, image_shape)
        for change in changes:
            image = change(image, number)
        return to_bytes(image), tf.one_hot(label, classes), number

    return prepare


def _cropping(images, image_shape, classes, crop, seeds):
    """A function from number and index to an image of that size and a label."""
    tf = require("tensorflow")
    if crop not in (None, *CROPS):
        raise ValueError(
            f"`crop` must be one of {CROPS}. Received: crop={crop!r}"
        )
    *size, channels = image_shape

    def inception(number, index):
        pixels, label = read_checked(images, index, classes)
        seed = (seeds.crop, number)
        if images.decoded:
            pixels = inception_crop(pixels, seed)
        else:
            pixels = decode_inception_crop(pixels, channels, seed)
        return tf.image.resize(pixels, size), label

    def resized(number, index):
        pixels, label = _decoded(images, index, image_shape, classes)
        image = central(pixels, size, 1.0, INTERPOLATION)
        if crop == "pad":
            image = shifted(image, (seeds.crop, number))
        return image, label

    return inception if crop == "inception" else resized


def _decoded(images, index, image_shape, classes):
    pixels, label = read_checked(images, index, classes)
    if not images.decoded:
        pixels = decode(pixels, image_shape[-1])
    return pixels, label
