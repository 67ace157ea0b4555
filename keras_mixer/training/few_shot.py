"""Few-shot accuracy: a measure of how good the features of a model are."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mixer.arguments import check_model
from keras_mixer.arguments import check_positive_int
from keras_mixer.arguments import check_real

# Constants of the official evaluation.
L2 = 2.0**10


BIAS = 100.0


STD_EPSILON = 1e-5


def few_shot(
    model: keras.Model,
    train: Any,
    test: Any,
    shots: Sequence[int] = (1, 5, 10, 25),
    l2: float = L2,
    repeats: int = 3,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[int, float]:
    """Measures how good features are, with few images of each class.

    The model is not trained: its outputs are the features of an image. A linear
    map from features to classes is fitted to `shots` random images per class,
    by least squares with an l2 penalty. The fit is repeated with other images,
    and the mean accuracy is returned.

    Source: the "linear 5-shot" evaluation of MLP-Mixer (arXiv 2105.01601,
    section 3); its constants are those of `evaluators/fewshot_lsr.py` in
    google-research/big_vision: features are shifted and scaled by mean and
    standard deviation of the training images, a constant of 100 is appended,
    the targets are -1 and 1, and the penalty is 1024.

    Args:
        model: A Keras model from images to features of shape `(batch, size)`,
            such as one built with `include_top=False, pooling="avg"`.
        train: `(images, labels)`, arrays of shape `(n, ...)` and `(n,)`; labels
            are integers. Or a dataset of batches of images and one-hot labels,
            as `keras_mixer.data` returns it.
        test: Like `train`, with the same classes.
        shots: Positive integers, the numbers of images per class.
        l2: Positive number, the penalty.
        repeats: Positive integer, the number of random draws of images.
        batch_size: Positive integer, for images in arrays.
        seed: Integer, the seed of the draws.

    Returns:
        `{shots: accuracy}`, each accuracy in [0, 1].

    Raises:
        ValueError: If a class has too few images, arrays do not fit together,
            or the model does not return one vector per image.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import numpy as np
    >>> import keras_mixer
    >>> model = keras_mixer.Mixer(
    ...     patch_size=4, num_blocks=1, hidden_dim=8, tokens_mlp_dim=8,
    ...     channels_mlp_dim=8, input_shape=(8, 8, 1), include_top=False,
    ...     pooling="avg")
    >>> dark, light = np.zeros((6, 8, 8, 1)), np.full((6, 8, 8, 1), 255.0)
    >>> images, labels = np.concatenate([dark, light]), np.repeat([0, 1], 6)
    >>> keras_mixer.few_shot(model, (images, labels), (images, labels), [5])
    {5: 1.0}
    """
    shots = [check_positive_int("shots", count) for count in shots]
    repeats = check_positive_int("repeats", repeats)
    batch_size = check_positive_int("batch_size", batch_size)
    check_real("l2", l2)
    if l2 <= 0:
        raise ValueError(f"`l2` must be positive. Received: l2={l2}")
    _check_model(model)
    features, y = _features(model, "train", train, batch_size)
    features_test, y_test = _features(model, "test", test, batch_size)
    places = _places(y, y_test, max(shots, default=1))
    mean, std = features.mean(axis=0), features.std(axis=0) + STD_EPSILON
    features, features_test = (
        _with_constant((values - mean) / std)
        for values in (features, features_test)
    )
    accuracies = {}
    for count in shots:
        correct = []
        for repeat in range(repeats):
            rng = np.random.default_rng((seed, repeat))
            drawn = np.concatenate(
                [rng.permutation(place)[:count] for place in places.values()]
            )
            weights = _least_squares(
                features[drawn], np.repeat(np.arange(len(places)), count), l2
            )
            predicted = np.argmax(features_test @ weights, axis=1)
            correct.append(np.mean(np.array(list(places))[predicted] == y_test))
        accuracies[count] = float(np.mean(correct))
    return accuracies


def _check_pair(name, pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(
            f"`{name}` must be a pair of arrays, images and labels, or a "
            "dataset of batches. "
            f"Received: {name} of type {type(pair).__name__}"
        )
    x, y = pair[0], np.asarray(pair[1])
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(x) != len(y):
        raise ValueError(
            f"`{name}` must hold one integer label per image. "
            f"Received: {len(x)} images, labels of shape {y.shape} and dtype "
            f"{y.dtype}"
        )
    return x, y


def _places(y, y_test, needed):
    """Returns `{label: indices of its images}`; checks their number."""
    places = {int(label): np.flatnonzero(y == label) for label in np.unique(y)}
    few = {
        label: len(place)
        for label, place in places.items()
        if len(place) < needed
    }
    if few or len(places) < 2:
        raise ValueError(
            f"Every class must have {needed} images to train on, and there "
            "must be at least two classes. Received: "
            + (f"{{label: images}} = {few}" if few else f"labels {set(places)}")
        )
    unknown = set(np.unique(y_test).tolist()) - set(places)
    if unknown:
        raise ValueError(
            "The labels of `test` must be among those of `train`. "
            f"Received: labels {sorted(unknown)} only in `test`"
        )
    return places


def _check_model(model):
    check_model(model)
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(
            "`model` must be a Keras model with one output, one vector per "
            'image: build it with `include_top=False, pooling="avg"`. '
            f"Received: model='{model.name}' with output_shape={shape}"
        )


def _features(model, name, images, batch_size):
    """Returns features in float64, and integer labels."""
    if hasattr(images, "element_spec"):
        batches = [
            # Not a tensor of TensorFlow: some backends do not accept it.
            (model.predict_on_batch(np.asarray(x)), np.argmax(y, axis=1))
            for x, y in images
        ]
        features, labels = map(np.concatenate, zip(*batches, strict=True))
    else:
        x, labels = _check_pair(name, images)
        features = model.predict(x, batch_size=batch_size, verbose=0)
    return features.astype("float64"), labels


def _with_constant(features):
    return np.pad(features, ((0, 0), (0, 1)), constant_values=BIAS)


def _least_squares(x, labels, l2):
    """Returns weights of shape `(features, classes)`."""
    targets = 2.0 * (labels[:, None] == np.arange(labels.max() + 1)) - 1
    return np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
