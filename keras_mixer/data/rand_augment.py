"""RandAugment, as a function of an image and random numbers.

Colors are changed by the layers of keras-cv, with their method
`augment_images`, which takes the transformation as an argument. The strengths
are those of the official code: the policy of keras-cv shears and translates
several times as far. Images are moved by one TensorFlow operation with a
matrix, since one of keras-cv's layers for this fails on JAX and PyTorch.

TensorFlow and keras-cv are imported where they are used.
"""

import functools
import math

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_real
from keras_mixer.optional import require

# Fill value for pixels moved in from outside the image, as in the official
# code.
GRAY = 128


# Distances are published in pixels, for images of 224 x 224.
TRANSLATION = 100 / 224


CUTOUT = 40 / 224


# In the order of the official code.
OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "cutout",
    "solarize_add",
)


# Random numbers of an operation: its index, its sign, and a place (two).
DRAWS_PER_OPERATION = 4


def rand_augment(num_operations, magnitude):
    """Returns a function that applies RandAugment to an image.

    Source: RandAugment (arXiv 1909.13719), with the 16 operations and the
    strengths of `pp/autoaugment.py` in google-research/big_vision. There are
    three differences to that code. Contrast is changed around the mean of each
    channel, not around a number that depends on the size of the image. Values
    are not rounded between operations. Distances are proportional to the size
    of the image.

    Args:
        num_operations: Positive integer, the number of operations per image.
        magnitude: Non-negative number, the strength. 10 is the full range of
            each operation; larger values are allowed.

    Returns:
        A function of two tensors: a float32 image of shape `(height, width,
        channels)` with 1 or 3 channels in [0, 255], and random numbers in
        [0, 1) of shape `(num_operations, 4)`. It returns the changed image.

    Raises:
        ImportError: If keras-cv is not installed.
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.data.rand_augment import rand_augment
    >>> augment = rand_augment(2, magnitude=10)
    >>> augment(tf.zeros((16, 24, 3)), tf.zeros((2, 4))).shape.as_list()
    [16, 24, 3]
    """
    tf = require("tensorflow")

    num_operations = check_positive_int("num_operations", num_operations)
    check_real("magnitude", magnitude)
    if magnitude < 0:
        raise ValueError(
            "The magnitude of RandAugment must not be negative. "
            f"Received: magnitude={magnitude}"
        )
    operate = _operation(magnitude / 10)

    def augment(image, draws):
        channels = image.shape[-1]
        if channels not in (1, 3):
            raise ValueError(
                "RandAugment changes images of 1 or 3 channels. Use a recipe "
                "or an `Augmentation` without RandAugment. Received: images of "
                f"{channels} channels"
            )
        for draw in tf.unstack(draws, num_operations):
            image = operate(image, draw)
        return image

    return augment


@functools.cache
def _operation(level):
    """Returns a function for one operation, traced once for all pipelines."""
    tf = require("tensorflow")

    keras_cv = require("keras_cv")
    operations = {**_changes(keras_cv, level), **_moves(level)}
    operations["cutout"] = _cutout(keras_cv, level)
    runs = [operations[name] for name in OPERATIONS]

    @tf.function
    def operate(image, draw):
        choice = tf.cast(draw[0] * len(runs), tf.int32)
        sign = tf.where(draw[1] < 0.5, 1.0, -1.0)
        branches = [
            functools.partial(run, image[None], sign, draw[2:]) for run in runs
        ]
        return tf.ensure_shape(tf.switch_case(choice, branches)[0], image.shape)

    return operate


def _changes(keras_cv, level):
    """Returns the operations that change colors."""
    tf = require("tensorflow")

    # float32 for any dtype policy: 16 bits are too few for the pixels.
    options = {"dtype": "float32", "value_range": (0, 255)}
    layers = keras_cv.layers
    auto_contrast = layers.AutoContrast(**options)
    equalization = layers.Equalization(**options)
    # As in the official code, a higher level keeps more bits. At least one bit
    # is kept: with 0 bits, at low levels, the image would be black.
    bits = min(max(int(4 * level), 1), 8)
    posterization = layers.Posterization(bits=bits, **options)
    solarization = layers.Solarization(**options)
    color = layers.RandomColorDegeneration(0.0, dtype="float32")
    contrast = layers.RandomContrast(factor=0.0, **options)
    sharpness = layers.RandomSharpness(0.0, **options)

    threshold, addition = float(int(256 * level)), float(int(110 * level))
    factor = 0.1 + 1.8 * level  # 1 does not change the image

    def colored(x, *_):
        if x.shape[-1] == 1:
            return x
        return color.augment_images(x, 1 - factor)

    return {
        "auto_contrast": lambda x, *_: auto_contrast.augment_images(x),
        "equalize": lambda x, *_: equalization.augment_images(x),
        "invert": lambda x, *_: 255 - x,
        "posterize": lambda x, *_: posterization.augment_image(x),
        "solarize": lambda x, *_: solarization.augment_images(
            x, {"additions": 0.0, "thresholds": threshold}
        ),
        "color": colored,
        "contrast": lambda x, *_: contrast.augment_images(x, factor),
        "brightness": lambda x, *_: tf.clip_by_value(factor * x, 0, 255),
        "sharpness": lambda x, *_: sharpness.augment_images(x, 1 - factor),
        "solarize_add": lambda x, *_: tf.where(
            x < 128, tf.clip_by_value(x + addition, 0, 255), x
        ),
    }


def _moves(level):
    """Returns the operations that move an image."""
    shear, shift = 0.3 * level, TRANSLATION * level
    angle = level * math.radians(30)
    # The first two rows of a projective matrix, of a sign, height and width.
    matrices = {
        "rotate": lambda sign, *size: _rotation(sign * angle, *size),
        "shear_x": lambda sign, *_: (1, shear * sign, 0, 0, 1, 0),
        "shear_y": lambda sign, *_: (1, 0, 0, shear * sign, 1, 0),
        "translate_x": lambda sign, _, w: (1, 0, -shift * sign * w, 0, 1, 0),
        "translate_y": lambda sign, h, _: (1, 0, 0, 0, 1, -shift * sign * h),
    }

    def moving(matrix):
        return lambda x, sign, _: _moved(x, matrix(sign, *x.shape[1:3]))

    return {name: moving(matrix) for name, matrix in matrices.items()}


def _rotation(angle, height, width):
    tf = require("tensorflow")
    sine, cosine = tf.sin(angle), tf.cos(angle)
    # The offsets keep the center in its place.
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    left = middle_x - middle_x * cosine + middle_y * sine
    top = middle_y - middle_x * sine - middle_y * cosine
    return cosine, -sine, left, sine, cosine, top


def _moved(images, matrix):
    tf = require("tensorflow")
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=[[*matrix, 0.0, 0.0]],
        output_shape=images.shape[1:3],
        fill_value=GRAY,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def _cutout(keras_cv, level):
    """Returns the operation that covers a square."""
    tf = require("tensorflow")
    layer = keras_cv.layers.RandomCutout(
        0.0, 0.0, fill_value=GRAY, dtype="float32"
    )

    def cut_out(x, _, place):
        size = x.shape[1:3].as_list()
        side = tf.constant([2 * int(CUTOUT * level * min(size))])
        centers = tf.cast(place * tf.constant(size, "float32"), tf.int32)
        square = {
            "centers_y": centers[:1],
            "centers_x": centers[1:],
            "rectangles_height": side,
            "rectangles_width": side,
        }
        return layer.augment_images(x, square)

    return cut_out
