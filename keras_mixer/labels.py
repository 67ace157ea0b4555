"""Names of classes, and decoding of predictions into names.

The package contains the lists, so nothing is downloaded. Each list is a file
with a line `wnid name` for each class, in the order of the published weights. A
name is the first lemma of the WordNet synset, as in Keras Applications.
"""

import functools
import importlib.resources

import keras
import numpy as np

from keras_mixer.arguments import check_positive_int
from keras_mixer.types import Tensor

# Number of classes -> file in `class_names/`.
CLASS_LISTS = {
    10: "cifar10.txt",
    1000: "imagenet.txt",
    11221: "imagenet21k_miil.txt",
    21843: "imagenet21k.txt",
}


def decode_predictions(
    preds: Tensor, top: int = 5
) -> list[list[tuple[str, str, float]]]:
    """Decodes predictions into class names, most probable first.

    The number of classes selects the list of names: 1000 for ImageNet-1k,
    21,843 for ImageNet-21k in the order of the official checkpoints, 11,221 for
    the ImageNet-21k subset of MIIL, 10 for CIFAR-10. Do not use this function
    for a model that was trained on other classes: the names would be wrong.

    Source: `keras.applications.imagenet_utils.decode_predictions`, which
    downloads its list.

    Args:
        preds: Array or tensor of shape `(batch, classes)`, the predictions of a
            model with its top.
        top: Positive integer, the number of classes to return for each image.

    Returns:
        A list with one list for each image. It contains tuples
        `(wnid, name, score)`, sorted by decreasing score. The classes of
        CIFAR-10 have no wnid, so it is replaced by the number of the class.

    Raises:
        ValueError: If `preds` does not have this shape or contains NaN, or if
            `top` is below 1.
        TypeError: If `top` is not an integer.

    Example:

    >>> import numpy as np
    >>> import keras_mixer
    >>> preds = np.zeros((1, 1000))
    >>> preds[0, 388] = 1.0
    >>> keras_mixer.mixer.decode_predictions(preds, top=1)
    [[('n02510455', 'giant_panda', 1.0)]]
    """
    preds = keras.ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] not in CLASS_LISTS:
        raise ValueError(
            "`decode_predictions` expects predictions of shape (batch, "
            "classes), where classes is 1000 (ImageNet-1k), 21843 "
            "(ImageNet-21k), 11221 (ImageNet-21k of MIIL) or 10 (CIFAR-10). "
            "Use the output of a model with `include_top=True` and one of "
            "these numbers of classes. "
            f"Received: array of shape {preds.shape}"
        )
    top = check_positive_int("top", top)
    # The negative of an integer may overflow or wrap around.
    preds = preds.astype("float64")
    if np.isnan(preds).any():
        raise ValueError(
            "`decode_predictions` cannot sort predictions that contain NaN."
        )
    names = class_names(preds.shape[1])
    # A stable sort keeps classes with equal scores in their order.
    order = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*names[index], float(scores[index])) for index in indices]
        for scores, indices in zip(preds, order, strict=True)
    ]


@functools.cache
def class_names(classes: int) -> list[tuple[str, str]]:
    """Returns `(wnid, name)` of each class, in the order of predictions."""
    package = importlib.resources.files("keras_mixer")
    file = package / "class_names" / CLASS_LISTS[classes]
    lines = file.read_text("utf-8").splitlines()
    names = (line.partition(" ") for line in lines)
    return [(wnid, name) for wnid, _, name in names]
