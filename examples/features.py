"""Reads features from a Mixer and classifies them with a linear classifier.

    python examples/features.py
    python examples/train.py
    python examples/features.py --weights runs/train/model.keras

`include_top=False, pooling="avg"` leaves the head out: the model then returns
what the head would read, a vector for each image. Here a logistic regression
reads it, on the digits that `train.py` held out, and on their bare pixels for
comparison. Accuracies are of a cross-validation in five parts, so the images
that are classified were seen neither by the Mixer nor by the regression.

The first command is of a Mixer that has only seen CIFAR-10's photos, in color:
its weights are in the package, and are brought to grayscale. The last is of one
that has learned digits.
"""

import argparse

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from train import small_mixer

import keras_mixer
from data import load_digits


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", help="saved by train.py on the digits")
    args = parser.parse_args()
    try:
        data, backbone = load(args.weights)
    except ValueError as error:
        parser.error(str(error))
    images, labels = data.held_out
    features = backbone.predict(images, verbose=0)
    pixels = images.reshape(len(images), -1)
    print(f"{pixels.shape[1]} pixels: {accuracy(pixels, labels):.1f} %")
    print(f"{features.shape[1]} features: {accuracy(features, labels):.1f} %")


def load(weights):
    """The digits, and a Mixer without its head, in the size that it takes."""
    options = {"include_top": False, "pooling": "avg"}
    if weights is None:
        data = load_digits(32)
        return data, keras_mixer.MixerNano(
            input_shape=data.image_shape, **options
        )
    data = load_digits(8)
    return data, small_mixer(data.image_shape, weights=weights, **options)


def accuracy(x, labels):
    """Held-out accuracy of a linear classifier, in percent."""
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000)
    )
    return 100 * cross_val_score(classifier, x, labels, cv=5).mean()


if __name__ == "__main__":
    main()
