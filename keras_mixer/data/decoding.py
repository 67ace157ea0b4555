"""Decoding of image files in TensorFlow, with the same pixels as Pillow.

TensorFlow ignores EXIF data. So `folders` reads photos that must be rotated
with Pillow. TensorFlow is imported where it is used.
"""

from keras_mixer.optional import require


def decode(data, channels):
    """Decodes an image file to uint8 of shape `(height, width, channels)`.

    The result is that of Pillow: JPEG is decoded with the accurate method,
    transparent pixels are blended with white, and colors are converted to grey
    with the weights of ITU-R 601-2.
    """
    tf = require("tensorflow")

    def jpeg():
        return tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")

    def png():
        return on_white(tf.io.decode_png(data, 4))

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
    return pixels if channels == 3 else grey(pixels)


def on_white(pixels):
    """Blends pixels with white; their last channel is the opacity."""
    tf = require("tensorflow")
    pixels = tf.cast(pixels, "float32")
    alpha = pixels[..., -1:] / 255
    pixels = alpha * pixels[..., :-1] + (1 - alpha) * 255
    return tf.cast(tf.round(pixels), "uint8")


def grey(pixels):
    """Converts RGB to one channel, with the integer arithmetic of Pillow."""
    tf = require("tensorflow")
    red, green, blue = tf.unstack(tf.cast(pixels, "int32"), axis=-1)
    grey = (19595 * red + 38470 * green + 7471 * blue + 2**15) // 2**16
    return tf.cast(grey, "uint8")[..., None]
