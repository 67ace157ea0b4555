"""Image files to pixels, in TensorFlow: decoding, cropping, resizing.

Images to evaluate on are decoded and resized as `load_image` does it with
Pillow, so a data set and a single photo give the same. Images to train on are
cropped while they are decoded: of a JPEG only the crop is computed. TensorFlow
ignores EXIF data; `data` lets Pillow read photos that have to be turned.

TensorFlow is imported where it is used.
"""

import functools
import math

import numpy as np

# The official inception crop: `decode_jpeg_and_inception_crop` of big_vision.
CROP_AREA = (0.05, 1.0)
CROP_RATIOS = (0.75, 1.33)


@functools.cache
def import_tensorflow():
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(INSTALL.format("TensorFlow")) from error
    return tf


INSTALL = (
    "Reading data sets needs {}. Install it with "
    "`pip install keras_mixer[train]`."
)


def decode(data, channels):
    """Decodes an image file to uint8 of shape `(height, width, channels)`.

    As Pillow does it: JPEG by its accurate method, transparency laid on white,
    colors to grey by the weights of ITU-R 601-2.
    """
    tf = import_tensorflow()

    def jpeg():
        return tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")

    def png():
        pixels = tf.cast(tf.io.decode_png(data, 4), "float32")
        alpha = pixels[..., 3:] / 255
        pixels = alpha * pixels[..., :3] + (1 - alpha) * 255
        return tf.cast(tf.round(pixels), "uint8")

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
    return pixels if channels == 3 else _grey(pixels)


def _grey(pixels):
    """Converts RGB to one channel, with the numbers of Pillow."""
    tf = import_tensorflow()
    red, green, blue = tf.unstack(tf.cast(pixels, "int32"), axis=-1)
    grey = (19595 * red + 38470 * green + 7471 * blue + 2**15) // 2**16
    return tf.cast(grey, "uint8")[..., None]


def decode_inception_crop(data, channels, seed):
    """The same crop of an encoded image, of which JPEGs decode no more."""
    tf = import_tensorflow()

    def jpeg():
        box = _inception_box(tf.io.extract_jpeg_shape(data), seed)
        pixels = tf.io.decode_and_crop_jpeg(
            data, box, 3, dct_method="INTEGER_ACCURATE"
        )
        return pixels if channels == 3 else _grey(pixels)

    def other():
        return inception_crop(decode(data, channels), seed)

    return tf.cond(tf.io.is_jpeg(data), jpeg, other)


def inception_crop(pixels, seed):
    tf = import_tensorflow()
    top, left, height, width = tf.unstack(
        _inception_box(tf.shape(pixels), seed)
    )
    return pixels[top : top + height, left : left + width]


def _inception_box(shape, seed):
    """Top, left, height and width of a box of random size and proportions."""
    tf = import_tensorflow()
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
    """An image moved by up to an eighth of its sides, black where it was."""
    tf = import_tensorflow()
    height, width, _ = image.shape
    margins = [[math.ceil(side / 8)] * 2 for side in (height, width)]
    padded = tf.pad(image, [*margins, [0, 0]])
    return tf.image.stateless_random_crop(padded, image.shape, seed)


# What `keras_mixer.load_image` takes, as TensorFlow's kernels.
KERNELS = {
    "nearest": None,
    "area": "box",
    "bilinear": "triangle",
    "bicubic": "keyscubic",
    "lanczos": "lanczos3",
}


def central(pixels, size, crop_ratio, interpolation):
    """Resizes a centred box of an image with antialiasing.

    The box is resampled as `keras_mixer.load_image` does it: its sides need not
    be whole pixels.

    Args:
        pixels: Tensor of shape `(height, width, channels)`.
        size: Height and width of what is returned.
        crop_ratio: Float in (0, 1].
        interpolation: As `load_image` takes it.

    Returns:
        A float32 tensor in [0, 255], or `pixels` where nothing is to be done.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.decoding import central
    >>> image = central(tf.zeros((30, 40, 3)), (8, 12), 0.875, "bicubic")
    >>> image.shape.as_list()
    [8, 12, 3]
    """
    tf = import_tensorflow()
    if crop_ratio == 1 and pixels.shape[:2] == tuple(size):
        return pixels
    pixels = tf.cast(pixels, "float32")
    sides = tf.cast(tf.shape(pixels)[:2], "float32")
    target = np.array(size, "float32")
    # Pixels of the image for one of the result.
    step = crop_ratio * tf.reduce_min(sides / target)
    begin = (sides - step * target) / 2
    if interpolation == "nearest":
        for axis, side in enumerate(size):
            places = (
                begin[axis] + (tf.range(side, dtype="float32") + 0.5) * step
            )
            pixels = tf.gather(pixels, tf.cast(places, "int32"), axis=axis)
        return pixels
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=size,
        scale=[1 / step] * 2,
        translation=-begin / step,
        kernel_type=KERNELS[interpolation],
        antialias=True,
    )[0]
    return tf.clip_by_value(pixels, 0, 255)
