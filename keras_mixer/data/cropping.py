"""Crops of images in TensorFlow, for training and evaluation.

For evaluation, images are resized as in `load_image`, so a data set and a
single photo give the same pixels. For training, a JPEG is cropped while it is
decoded, so pixels outside the crop are not computed.

TensorFlow is imported where it is used.
"""

import math

from keras_mixer.data.decoding import decode
from keras_mixer.data.decoding import grey
from keras_mixer.data.photos import INTERPOLATIONS
from keras_mixer.data.photos import centred_box
from keras_mixer.optional import require

# The official inception crop: `decode_jpeg_and_inception_crop` of big_vision.
CROP_AREA = (0.05, 1.0)


CROP_RATIOS = (0.75, 1.33)


def decode_inception_crop(data, channels, seed):
    """Decodes a random crop of an image; of a JPEG only the crop."""
    tf = require("tensorflow")

    def jpeg():
        box = _inception_box(tf.io.extract_jpeg_shape(data), seed)
        pixels = tf.io.decode_and_crop_jpeg(
            data, box, 3, dct_method="INTEGER_ACCURATE"
        )
        return pixels if channels == 3 else grey(pixels)

    def other():
        return inception_crop(decode(data, channels), seed)

    return tf.cond(tf.io.is_jpeg(data), jpeg, other)


def inception_crop(pixels, seed):
    """Returns a random crop of decoded pixels."""
    tf = require("tensorflow")
    top, left, height, width = tf.unstack(
        _inception_box(tf.shape(pixels), seed)
    )
    return pixels[top : top + height, left : left + width]


def _inception_box(shape, seed):
    """Returns top, left, height and width of a random box."""
    tf = require("tensorflow")
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((0, 0, 4)),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=CROP_RATIOS,
        area_range=CROP_AREA,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def shifted(image, seed):
    """Shifts an image by up to 1/8 of its sides, and fills with black."""
    tf = require("tensorflow")
    height, width, _ = image.shape
    margins = [[math.ceil(side / 8)] * 2 for side in (height, width)]
    padded = tf.pad(image, [*margins, [0, 0]])
    return tf.image.stateless_random_crop(padded, image.shape, seed)


def central(pixels, size, crop_ratio, interpolation):
    """Resizes a centred box of an image with antialiasing.

    The box is resampled as in `keras_mixer.load_image`. Its sides can be
    fractions of pixels.

    Args:
        pixels: Tensor of shape `(height, width, channels)`.
        size: Height and width of the result.
        crop_ratio: Float in (0, 1].
        interpolation: As in `load_image`.

    Returns:
        A float32 tensor in [0, 255]; or `pixels` unchanged, if they have this
        size and `crop_ratio` is 1.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.data.cropping import central
    >>> image = central(tf.zeros((30, 40, 3)), (8, 12), 0.875, "bicubic")
    >>> image.shape.as_list()
    [8, 12, 3]
    """
    tf = require("tensorflow")
    if crop_ratio == 1 and pixels.shape[:2] == tuple(size):
        return pixels
    pixels = tf.cast(pixels, "float32")
    sides = tf.unstack(tf.cast(tf.shape(pixels)[:2], "float32"))
    step, begin = centred_box(sides, size, crop_ratio, tf.minimum)
    if interpolation == "nearest":
        for axis, side in enumerate(size):
            places = (
                begin[axis] + (tf.range(side, dtype="float32") + 0.5) * step
            )
            pixels = tf.gather(pixels, tf.cast(places, "int32"), axis=axis)
        return pixels
    _, kernel = INTERPOLATIONS[interpolation]
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=size,
        scale=[1 / step] * 2,
        translation=[-place / step for place in begin],
        kernel_type=kernel,
        antialias=True,
    )[0]
    return tf.clip_by_value(pixels, 0, 255)
