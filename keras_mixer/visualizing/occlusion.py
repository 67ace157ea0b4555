"""Occlusion maps: what a model no longer recognizes if a part is covered."""

import math

import keras
import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_real
from keras_mixer.visualizing.checks import check_class
from keras_mixer.visualizing.checks import check_image
from keras_mixer.visualizing.checks import outputs_of
from keras_mixer.visualizing.checks import scores_of
from keras_mixer.visualizing.drawing import is_channels_first

# A middle gray for pixels in [0, 255].
GRAY = 127.5


def occlusion_map(
    model: keras.Model,
    image: np.ndarray,
    class_index: int | None = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    fill: float = GRAY,
    batch_size: int = 32,
) -> np.ndarray:
    """Returns how far the output for a class falls if a window is gray.

    A gray square is moved over the image. The map has one value for each
    position: the output for the whole image minus the output for the image with
    the square. This is the fall of the probability if the model returns
    probabilities. Large values are where the class is seen. A negative value
    means that the model is surer of the class without this part.

    The centers of the squares are spread evenly over the image, so the map
    covers exactly the image. At the border, the square is cut off.

    Source: section 4.2 of Zeiler and Fergus (arXiv 1311.2901).

    Args:
        model: Any Keras model with one image as input and one vector of scores
            as output.
        image: Array of shape `(height, width, channels)`, or a batch of one
            image as `keras_mixer.load_image` returns.
        class_index: Non-negative integer, the number of the class. The default
            is the class with the highest score.
        window: Positive integer, the side of the square in pixels. The default
            is twice the stride.
        stride: Positive integer, the largest distance between neighboring
            positions in pixels. The default is a tenth of the shorter side of
            the image.
        fill: Number, the pixel value of the square. The default is a middle
            gray for pixels in [0, 255]. Use 0 for a model that expects pixels
            in [-1, 1].
        batch_size: Positive integer, how many images to predict at a time.

    Returns:
        A float32 array of shape `(rows, columns)`: height and width divided by
        the stride, rounded up.

    Raises:
        ValueError: If the model has other inputs or outputs, the image has
            another shape, or a number is out of range.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import numpy as np
    >>> import keras_mixer
    >>> from keras_mixer import visualizing
    >>> model = keras_mixer.MixerNano(weights="cifar10")
    >>> photo = np.random.default_rng(0).uniform(0, 255, (32, 32, 3))
    >>> visualizing.occlusion_map(model, photo, stride=8).shape
    (4, 4)
    """
    batch = check_image(image, model)
    check_real("fill", fill)
    check_positive_int("batch_size", batch_size)
    height, width, _ = _channels_last(batch[0]).shape
    if stride is None:
        stride = default_stride(height, width)
    stride = check_positive_int("stride", stride)
    window = 2 * stride if window is None else window
    window = check_positive_int("window", window)
    scores = scores_of(model, batch)
    index = check_class(class_index, scores)

    rows, columns = (
        _spans(height, stride, window),
        _spans(width, stride, window),
    )
    boxes = [(row, column) for row in rows for column in columns]
    covered = _predictions(model, batch, boxes, fill, batch_size)[:, index]
    falls = (scores[index] - covered).reshape(len(rows), len(columns))
    return falls.astype("float32")


def default_stride(height, width):
    return max(1, min(height, width) // 10)


def _spans(side, stride, window):
    """Returns the slices of the windows along an axis of an image."""
    count = math.ceil(side / stride)
    starts = [
        round((i + 0.5) * side / count - window / 2) for i in range(count)
    ]
    return [slice(max(0, start), start + window) for start in starts]


def _predictions(model, batch, boxes, fill, batch_size):
    """Returns the outputs for an image with each of the boxes covered.

    All batches have the same size, because a backend compiles the model for
    each size. The last batch is filled with copies of the image.
    """
    outputs = []
    for start in range(0, len(boxes), batch_size):
        images = np.repeat(batch, min(batch_size, len(boxes)), axis=0)
        some = boxes[start : start + len(images)]
        for image, (row, column) in zip(images, some, strict=False):
            _channels_last(image)[row, column] = fill
        outputs.append(outputs_of(model, images)[: len(some)])
    return np.concatenate(outputs)


def _channels_last(image):
    """Returns a view of an image of shape `(height, width, channels)`."""
    if is_channels_first():
        return np.moveaxis(image, 0, -1)
    return image
