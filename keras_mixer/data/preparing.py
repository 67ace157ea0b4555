"""From the number of an image to its pixels and its label.

Files are decoded to the same pixels as by Pillow. TensorFlow ignores EXIF data,
so `folders` reads photos that must be rotated with Pillow. For training, a JPEG
is cropped while it is decoded, so pixels outside the crop are not computed. For
evaluation, images are resized as in `load_image`, so a data set and a single
photo give the same pixels.

Pixels are bytes in [0, 255] until they are in the network: a batch of floats
takes four times as long to copy to a device.

TensorFlow is imported where it is used.
"""

import math

from keras_mixer.data.augmenting import image_changes
from keras_mixer.data.augmenting import to_bytes
from keras_mixer.data.indexed import read_checked
from keras_mixer.data.photos import INTERPOLATION
from keras_mixer.data.photos import INTERPOLATIONS
from keras_mixer.data.photos import centered_box
from keras_mixer.optional import require

# The official inception crop: `decode_jpeg_and_inception_crop` of big_vision.
CROP_AREA = (0.05, 1.0)


CROP_RATIOS = (0.75, 1.33)


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


def decode(data, channels):
    """Decodes an image file to uint8 of shape `(height, width, channels)`.

    The result is that of Pillow: JPEG is decoded with the accurate method,
    transparent pixels are blended with white, and colors are converted to gray
    with the weights of ITU-R 601-2.
    """
    tf = require("tensorflow")

    def jpeg():
        return tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")

    def png():
        return on_white(_with_opacity(tf.io.decode_png(data, 4), data))

    def other():
        pixels = tf.io.decode_image(data, 3, expand_animations=False)
        pixels.set_shape((None, None, 3))
        return pixels

    pixels = tf.case(
        [
            (tf.io.is_jpeg(data), jpeg),
            (tf.strings.substr(data, 0, 4) == b"\x89PNG", png),
        ],
        default=other,
    )
    return pixels if channels == 3 else gray(pixels)


def _with_opacity(pixels, data):
    """Repairs the opacity of a PNG of 1, 2 or 4 bits.

    If a file has no opacity, TensorFlow 2.21 gives its pixels `2**bits - 1`,
    where opaque is 255.
    """
    tf = require("tensorflow")
    bits = tf.io.decode_raw(tf.strings.substr(data, 24, 1), "uint8")[0]

    def repaired():
        opacity = pixels[..., 3:]
        wrong = tf.bitwise.left_shift(tf.constant(1, "uint8"), bits) - 1
        is_wrong = tf.reduce_all(opacity == wrong)
        opacity = tf.where(is_wrong, tf.constant(255, "uint8"), opacity)
        return tf.concat([pixels[..., :3], opacity], axis=-1)

    return tf.cond(bits < 8, repaired, lambda: pixels)


def on_white(pixels):
    """Blends pixels with white; their last channel is the opacity."""
    tf = require("tensorflow")
    pixels = tf.cast(pixels, "float32")
    alpha = pixels[..., -1:] / 255
    pixels = alpha * pixels[..., :-1] + (1 - alpha) * 255
    return tf.cast(tf.round(pixels), "uint8")


def gray(pixels):
    """Converts RGB to one channel, with the integer arithmetic of Pillow."""
    tf = require("tensorflow")
    red, green, blue = tf.unstack(tf.cast(pixels, "int32"), axis=-1)
    gray = (19595 * red + 38470 * green + 7471 * blue + 2**15) // 2**16
    return tf.cast(gray, "uint8")[..., None]


def decode_inception_crop(data, channels, seed):
    """Decodes a random crop of an image; of a JPEG only the crop."""
    tf = require("tensorflow")

    def jpeg():
        box = _inception_box(tf.io.extract_jpeg_shape(data), seed)
        pixels = tf.io.decode_and_crop_jpeg(
            data, box, 3, dct_method="INTEGER_ACCURATE"
        )
        return pixels if channels == 3 else gray(pixels)

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
    """Resizes a centered box of an image with antialiasing.

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
    >>> from keras_mixer.data.preparing import central
    >>> image = central(tf.zeros((30, 40, 3)), (8, 12), 0.875, "bicubic")
    >>> image.shape.as_list()
    [8, 12, 3]
    """
    tf = require("tensorflow")
    if crop_ratio == 1 and pixels.shape[:2] == tuple(size):
        return pixels
    pixels = tf.cast(pixels, "float32")
    sides = tf.unstack(tf.cast(tf.shape(pixels)[:2], "float32"))
    step, begin = centered_box(sides, size, crop_ratio, tf.minimum)
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
