"""Says what is on photos: the five most probable classes of each.

    python examples/classify.py cat.jpg
    python examples/classify.py cat.jpg --model ResMLPS12 --weights imagenet
    python examples/classify.py cat.jpg --weights b16.weights.h5
    python examples/classify.py digit.png --weights runs/train/model.keras

`--weights` is a tag of published weights (`python -m keras_mixer weights` lists
them), which are downloaded once, or a file of your own: a whole model with any
classes (`.keras`), such as `train.py` saves, or weights for `--model` with
ImageNet's 1000 classes. By default it is "imagenet" where the model has such; a
model that has not is untrained, and its answers mean nothing.
"""

import argparse
import inspect
import sys

import keras
import numpy as np

import keras_mixer

VARIANTS = [
    name
    for name in keras_mixer.__all__
    if name[-1].isdigit() or name == "MixerNano"
]
NAMED = (
    1000,
    11221,
    21843,
)  # numbers of classes of which the library has the names


def main():
    parser = argument_parser()
    args = parser.parse_args()
    try:
        model, evaluation = load_model(args.model, args.weights)
        # All of them before the first answer, in case one is missing.
        images = [
            keras_mixer.load_image(photo, model, **evaluation)
            for photo in args.photos
        ]
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    predictions = model.predict(np.concatenate(images), verbose=0)
    for photo, scores in zip(args.photos, predictions, strict=True):
        print(f"{photo}:")
        for name, score in top_five(scores):
            print(f"{name} {100 * score:.1f} %")


def argument_parser():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument(
        "--model",
        choices=VARIANTS,
        default="MixerB16",
        metavar="NAME",
        help=" ".join(VARIANTS),
    )
    parser.add_argument(
        "--weights", metavar="TAG_OR_FILE", help="such as imagenet_sam"
    )
    return parser


def load_model(name, weights):
    """A classifier, and the options of `load_image` for its photos."""
    if weights is not None and weights.endswith(".keras"):
        return load_whole(weights), {"crop_ratio": 1.0}  # as train.py cuts
    constructor = getattr(keras_mixer, name)
    defaults = inspect.signature(constructor).parameters
    weights = weights or defaults["weights"].default
    if weights is None:
        print(
            "Warning: without --weights the model is untrained, and its "
            "answers mean nothing.",
            file=sys.stderr,
        )
    published = f"{defaults['name'].default}.{weights}"
    for record in keras_mixer.list_weights(published):
        source = record.source
        return constructor(weights=weights, classes=record.classes or 1000), {
            "crop_ratio": source.crop_ratio,
            "interpolation": source.interpolation,
        }
    return constructor(weights=weights), {}


def load_whole(file):
    try:
        model = keras.models.load_model(file, compile=False)
        _, _ = model.output_shape  # (batch, classes)
    # Keras raises nearly anything on broken files.
    except Exception as error:
        raise ValueError(
            f"'{file}' is no model that classifies: {error}"
        ) from error
    return model


def top_five(scores):
    if len(scores) in NAMED:
        (top,) = keras_mixer.mixer.decode_predictions(scores[None], top=5)
        return [(f"{wnid} {name}", score) for wnid, name, score in top]
    order = np.argsort(-scores, kind="stable")[:5]
    return [(f"class {index} ", scores[index]) for index in order]


if __name__ == "__main__":
    main()
