"""What is done to training images, as functions of pixels and random numbers.

Nothing here draws by itself. keras-cv's layers and Keras's draw from generators
that count on from call to call, or from TensorFlow's global one, so what an
image gets depends on how many were drawn before it, and in what order threads
came by. Here every function takes its random numbers, or the seed of them, and
is the same function whoever calls it and when; a run can begin anywhere.

The colors of RandAugment are keras-cv's: its layers offer `augment_images`, a
function of images and a given transformation. The transformations are those of
the official code; keras-cv's own policy shears and translates several times as
far. What moves an image is one operation of TensorFlow with a matrix; keras-cv
has it in layers of which one fails on JAX and PyTorch when it is called so.
MixUp, CutMix and erasing are written out: in keras-cv they draw within the
function that mixes, and Keras's layers run in `tf.data` on every backend only
through their `__call__`, which draws too.

TensorFlow and keras-cv are imported where they are used.
"""

import functools
import math

from keras_mixer.checking import check_positive_int
from keras_mixer.checking import check_real

# What is found where an image was moved away, as in the official code.
GREY = 128

# Distances are published in pixels of images of 224.
TRANSLATION = 100 / 224
CUTOUT = 40 / 224

# Random erasing: the area and the proportions of a box, and the noise in it,
# which is N(0, 1) in pixels that are scaled as ImageNet's.
ERASED_AREA = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)
NOISE_MEAN = 255 * 0.449
NOISE_STD = 255 * 0.226

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
# For an operation: which one, which sign, and where.
DRAWS_PER_OPERATION = 4


def rand_augment(num_operations, magnitude):
    """A function that changes an image as RandAugment does.

    Source: RandAugment (arXiv 1909.13719), with the 16 operations and the
    strengths of `pp/autoaugment.py` in google-research/big_vision. It differs
    from that code in three points: contrast is changed around the mean of each
    channel (there around a number that depends on the size of the image);
    values between two levels are kept; distances grow with the image.

    Args:
        num_operations: Positive integer, operations for each image.
        magnitude: Non-negative number, their strength; 10 is the range of each
            operation, and more goes beyond.

    Returns:
        A function of an image, a float32 tensor of shape `(height, width,
        channels)` with 1 or 3 channels in [0, 255], and of numbers in [0, 1),
        a tensor of shape `(num_operations, 4)`. It returns the changed image.

    Raises:
        ImportError: If keras-cv is not installed.
        ValueError: If an argument is not in its range.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.augmenting import rand_augment
    >>> augment = rand_augment(2, magnitude=10)
    >>> augment(tf.zeros((16, 24, 3)), tf.zeros((2, 4))).shape.as_list()
    [16, 24, 3]
    """
    import tensorflow as tf

    num_operations = check_positive_int("num_operations", num_operations)
    check_real("magnitude", magnitude)
    if magnitude < 0:
        raise ValueError(
            "The magnitude of RandAugment must not be negative. "
            f"Received: magnitude={magnitude}"
        )
    operate = _operation(magnitude / 10)

    def augment(image, draws):
        for draw in tf.unstack(draws, num_operations):
            image = operate(image, draw)
        return image

    return augment


@functools.cache
def _operation(level):
    """One operation on an image; traced once for all pipelines."""
    import tensorflow as tf

    keras_cv = _keras_cv()
    operations = {**_changes(keras_cv, level), **_moves(keras_cv, level)}
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


def _keras_cv():
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "RandAugment needs keras-cv. Install it with "
            "`pip install keras_mixer[train]`."
        ) from error
    return keras_cv


def _changes(keras_cv, level):
    """The operations that leave everything in its place."""
    import tensorflow as tf

    # Whatever the policy: the pixels would not fit into 16 bits.
    options = {"dtype": "float32", "value_range": (0, 255)}
    layers = keras_cv.layers
    auto_contrast = layers.AutoContrast(**options)
    equalization = layers.Equalization(**options)
    # The official bits, of which it keeps more the stronger it is; with none
    # left, where it is weak, the image would be black.
    bits = min(max(int(4 * level), 1), 8)
    posterization = layers.Posterization(bits=bits, **options)
    solarization = layers.Solarization(**options)
    color = layers.RandomColorDegeneration(0.0, dtype="float32")
    contrast = layers.RandomContrast(factor=0.0, **options)
    sharpness = layers.RandomSharpness(0.0, **options)

    threshold, addition = float(int(256 * level)), float(int(110 * level))
    factor = 0.1 + 1.8 * level  # 1 leaves the image as it is

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


def _moves(keras_cv, level):
    """The operations that move an image, or cover a part of it."""
    import tensorflow as tf

    cutout = keras_cv.layers.RandomCutout(
        0.0, 0.0, fill_value=GREY, dtype="float32"
    )

    def moved(x, *matrix):
        """Takes each pixel from where these two rows of a matrix say."""
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=x,
            transforms=[[*matrix, 0.0, 0.0]],
            output_shape=x.shape[1:3],
            fill_value=GREY,
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )

    def rotate(x, sign, _):
        angle = sign * level * math.radians(30)
        sine, cosine = tf.sin(angle), tf.cos(angle)
        # Of the corner, such that the centre stays.
        middle_y, middle_x = ((side - 1) / 2 for side in x.shape[1:3])
        left = middle_x - middle_x * cosine + middle_y * sine
        top = middle_y - middle_x * sine - middle_y * cosine
        return moved(x, cosine, -sine, left, sine, cosine, top)

    def distance(side, sign):
        return TRANSLATION * level * sign * side

    def cut_out(x, _, place):
        size = x.shape[1:3].as_list()
        side = tf.constant([2 * int(CUTOUT * level * min(size))])
        centers = tf.cast(place * tf.constant(size, "float32"), tf.int32)
        return cutout.augment_images(
            x,
            {
                "centers_y": centers[:1],
                "centers_x": centers[1:],
                "rectangles_height": side,
                "rectangles_width": side,
            },
        )

    shear = 0.3 * level
    return {
        "rotate": rotate,
        "shear_x": lambda x, sign, _: moved(x, 1, shear * sign, 0, 0, 1, 0),
        "shear_y": lambda x, sign, _: moved(x, 1, 0, 0, shear * sign, 1, 0),
        "translate_x": lambda x, sign, _: moved(
            x, 1, 0, -distance(x.shape[2], sign), 0, 1, 0
        ),
        "translate_y": lambda x, sign, _: moved(
            x, 1, 0, 0, 0, 1, -distance(x.shape[1], sign)
        ),
        "cutout": cut_out,
    }


def erase(image, seed):
    """Fills a random box of an image with noise.

    Source: Random Erasing (arXiv 1708.04896), per pixel, as ResMLP was trained
    with it: `--reprob 0.25 --remode pixel` of facebookresearch/deit.

    Args:
        image: Uint8 tensor of shape `(height, width, channels)`.
        seed: Two integers.

    Returns:
        A tensor of that shape.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.augmenting import erase
    >>> erase(tf.zeros((16, 24, 3), "uint8"), (0, 1)).shape.as_list()
    [16, 24, 3]
    """
    import tensorflow as tf

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
    # Other numbers than those above, which the same seed would give again.
    noise = tf.random.stateless_normal(
        (1, bottom - top, right - left, channels),
        tf.random.fold_in(seed, 1),
        NOISE_MEAN,
        NOISE_STD,
    )
    return _pasted(image[None], to_bytes(noise), box)[0]


def mix_up(images, labels, alpha, seed):
    """Mixes each image, and its label, with the one before.

    Source: `get_mixup` of google-research/big_vision: one weight for a batch,
    from Beta(alpha, alpha), and never below a half.

    Args:
        images: Uint8 tensor of shape `(1 + batch, height, width, channels)`;
            the first is the one before the batch.
        labels: Float32 tensor of shape `(1 + batch, classes)`.
        alpha: Positive number.
        seed: Two integers.

    Returns:
        Images and labels of the batch.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.augmenting import mix_up
    >>> images, labels = mix_up(
    ...     tf.zeros((4, 6, 5, 3), "uint8"), tf.eye(4, 2), 0.5, seed=(0, 1))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([3, 6, 5, 3], [3, 2])
    """
    import tensorflow as tf

    weight = _beta(alpha, seed)
    weight = tf.maximum(weight, 1 - weight)

    def mixed(pair):
        image, before = (tf.cast(part, "float32") for part in pair)
        return to_bytes(weight * image + (1 - weight) * before)

    # One by one, in the processor's cache: five times as fast as a batch.
    signature = tf.TensorSpec(images.shape[1:], "uint8")
    images = tf.map_fn(
        mixed, (images[1:], images[:-1]), fn_output_signature=signature
    )
    return images, weight * labels[1:] + (1 - weight) * labels[:-1]


def cut_mix(images, labels, alpha, seed):
    """Puts a box of the image before into each image of a batch.

    Source: CutMix (arXiv 1905.04899), algorithm A1: the box lies around a
    point of the image, what lies outside is cut off, and the labels are mixed
    as the pixels are. One box for a batch.

    Args:
        images: Uint8 tensor of shape `(1 + batch, height, width, channels)`;
            the first is the one before the batch.
        labels: Float32 tensor of shape `(1 + batch, classes)`.
        alpha: Positive number, of the Beta distribution of the share that
            stays.
        seed: Two integers.

    Returns:
        Images and labels of the batch.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.augmenting import cut_mix
    >>> images, labels = cut_mix(
    ...     tf.zeros((4, 6, 5, 3), "uint8"), tf.eye(4, 2), 1.0, seed=(0, 1))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([3, 6, 5, 3], [3, 2])
    """
    import tensorflow as tf

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
    import tensorflow as tf

    draws = tf.random.stateless_gamma([2], seed, alpha)
    return draws[0] / (draws[0] + draws[1])


def _box_within(size, sides, place):
    """Top, bottom, left and right of a box of these sides in an image."""
    import tensorflow as tf

    box = []
    for length, side, position in zip(size, sides, place, strict=True):
        side = tf.minimum(tf.cast(side, "int32"), length)
        room = tf.cast(length - side + 1, "float32")
        start = tf.cast(position * room, "int32")
        box += [start, start + side]
    return box


def _box_around(size, sides, place):
    """Likewise, of a box around a point, cut off where the image ends."""
    import tensorflow as tf

    box = []
    for length, side, position in zip(size, sides, place, strict=True):
        side = tf.cast(side, "int32")
        start = tf.cast(position * length, "int32") - side // 2
        box += [tf.maximum(start, 0), tf.minimum(start + side, length)]
    return box


def _pasted(images, patches, box):
    """Copies, which takes a fraction of the time of choosing by a mask."""
    import tensorflow as tf

    top, bottom, left, right = box
    rows = images[:, top:bottom]
    rows = tf.concat([rows[:, :, :left], patches, rows[:, :, right:]], axis=2)
    pasted = tf.concat([images[:, :top], rows, images[:, bottom:]], axis=1)
    return tf.ensure_shape(pasted, images.shape)


def to_bytes(image):
    """Pixels as the nearest of 0 to 255, uint8; such as are so already stay.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer.augmenting import to_bytes
    >>> to_bytes(tf.constant([-3.0, 1.6, 300.0])).numpy().tolist()
    [0, 2, 255]
    """
    import tensorflow as tf

    if image.dtype == "uint8":
        return image
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), "uint8")
