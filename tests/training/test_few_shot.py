"""Few-shot evaluation, compared with scikit-learn and on real digits."""

import keras
import numpy as np
import pytest

import keras_mixer
from support.helpers import digits_model


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(7)
    return digits_model("mixer", include_top=False, pooling="avg")


def test_few_shot_accuracy_equals_ridge_regression(backbone, digits):
    """All images of each class are used, so there is no random choice."""
    from sklearn.linear_model import Ridge

    (x, y), test = digits
    kept = np.concatenate([np.flatnonzero(y == i)[:40] for i in range(10)])
    x, y = x[kept], y[kept]
    received = keras_mixer.few_shot(
        backbone, (x, y), test, shots=[40], repeats=1
    )
    features, features_test = (
        backbone.predict(images, verbose=0).astype("float64")
        for images in (x, test[0])
    )
    mean, std = features.mean(0), features.std(0) + 1e-5
    features, features_test = (
        np.concatenate([(f - mean) / std, np.full((len(f), 1), 100.0)], 1)
        for f in (features, features_test)
    )
    ridge = Ridge(alpha=1024, fit_intercept=False)
    ridge.fit(features, 2 * np.eye(10)[y] - 1)
    predicted = ridge.predict(features_test).argmax(1)
    assert received == {40: pytest.approx(np.mean(predicted == test[1]))}
    assert received[40] > 0.5


def test_more_images_and_trained_features_improve_accuracy(
    backbone, trained, digits
):
    model = keras.saving.load_model(trained, compile=False)
    features = keras.Model(model.input, model.get_layer("avg_pool").output)
    before = keras_mixer.few_shot(backbone, *digits, shots=(1, 25))
    after = keras_mixer.few_shot(features, *digits, shots=(1, 25))
    assert list(after) == [1, 25]
    assert before[1] < before[25] < after[25]
    assert after[25] > 0.9
    again = keras_mixer.few_shot(features, *digits, shots=(1, 25))
    assert again == after
    other = keras_mixer.few_shot(features, *digits, shots=(1,), seed=1)
    assert other[1] != after[1]


def test_labels_can_be_any_integers(backbone, digits):
    (x, y), (x_test, y_test) = digits
    expected = keras_mixer.few_shot(backbone, *digits, shots=[5])
    moved = keras_mixer.few_shot(
        backbone, (x, 3 * y - 7), (x_test, 3 * y_test - 7), shots=[5]
    )
    assert moved == expected


X = np.zeros((6, 8, 8, 1))
Y = np.arange(6) % 2
ERRORS = [
    ({"shots": [4]}, ValueError, r"4 images.*\{0: 3, 1: 3\}"),
    ({"train": (X, 0 * Y)}, ValueError, r"at least two classes.*\{0\}"),
    ({"test": (X, Y + 1)}, ValueError, r"labels \[2\] only in `test`"),
    ({"train": (X, Y[:5])}, ValueError, "6 images, labels of shape"),
    ({"train": (X, np.eye(2)[Y])}, ValueError, "labels of shape"),
    ({"train": (X, Y / 2)}, ValueError, "float64"),
    ({"train": X}, TypeError, "pair of arrays.*ndarray"),
    ({"l2": 0}, ValueError, "must be positive"),
    ({"shots": [0]}, ValueError, "shots"),
    ({"repeats": 1.5}, TypeError, "repeats"),
    ({"model": "model"}, TypeError, "Keras model"),
]


@pytest.mark.parametrize(("options", "error", "message"), ERRORS)
def test_wrong_arguments_of_few_shot_raise_errors(
    backbone, options, error, message
):
    arguments = {"model": backbone, "train": (X, Y), "test": (X, Y)}
    arguments |= {"shots": [2], **options}
    with pytest.raises(error, match=message):
        keras_mixer.few_shot(**arguments)


def test_model_that_returns_tokens_raises_an_error():
    tokens = digits_model("mixer", include_top=False)
    with pytest.raises(ValueError, match=r"output_shape=\(None, 16, 48\)"):
        keras_mixer.few_shot(tokens, (X, Y), (X, Y), [2])
    blocks = keras_mixer.features(tokens, form="pooled")  # a dict of two
    with pytest.raises(
        ValueError, match=r"with one output.*shape=\[\(None, 48"
    ):
        keras_mixer.few_shot(blocks, (X, Y), (X, Y), [2])
