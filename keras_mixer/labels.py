"""Names of classes, and predictions in words.

The lists ship in the package, one file each with a line `wnid name` for every
class in the order of the published weights, so nothing is ever downloaded. A
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

    The number of classes tells the list: 1000 for ImageNet-1k, 21,843 for
    ImageNet-21k in the order of the official checkpoints, 11,221 for the part
    of it that the weights of MIIL know, 10 for CIFAR-10. The classes of a model
    of your own have other names, however many they are.

    Source: `keras.applications.imagenet_utils.decode_predictions`, with the
    lists in the package.

    Args:
        preds: Array or tensor of shape `(batch, classes)`, what a model with
            its top predicts.
        top: Integer from 1, how many classes to return for each image.

    Returns:
        One list for each image of tuples `(wnid, name, score)`, by falling
        score. For CIFAR-10, which is not of WordNet, the number of the class
        stands for the wnid.

    Raises:
        ValueError: If `preds` is not of such a shape or holds NaN, or `top` is
            below 1.
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
            "(ImageNet-21k), 11221 (MIIL's part of it) or 10 (CIFAR-10): what "
            "a model with `include_top=True` and these classes returns. "
            f"Received: array of shape {preds.shape}"
        )
    top = check_positive_int("top", top)
    preds = preds.astype("float64")  # whose negative is never out of range
    if np.isnan(preds).any():
        raise ValueError(
            "`decode_predictions` expects numbers, to put in order. "
            "Received: predictions with NaN"
        )
    names = class_names(preds.shape[1])
    # Stable, so that equal scores come in the order of the classes.
    order = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*names[index], float(scores[index])) for index in indices]
        for scores, indices in zip(preds, order, strict=True)
    ]


@functools.cache
def class_names(classes: int) -> list[tuple[str, str]]:
    """The `(wnid, name)` of every class, in the order of the predictions."""
    package = importlib.resources.files("keras_mixer")
    file = package / "class_names" / CLASS_LISTS[classes]
    lines = file.read_text("utf-8").splitlines()
    names = (line.partition(" ") for line in lines)
    return [(wnid, name) for wnid, _, name in names]
