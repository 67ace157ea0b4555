"""Says what is on photos: the five most probable classes of each.

    python examples/classify.py cat.jpg
    python examples/classify.py cat.jpg --model MixerB16
    python examples/classify.py cat.jpg --model MixerB16 --weights b16.npz
    python examples/classify.py digit.png --weights runs/train/model.keras

By default it is `MixerNano`, which is in the package and knows the ten classes
of CIFAR-10; other models know ImageNet's, and their weights are downloaded,
once. `--weights` is a tag of published weights (`python -m keras_mixer weights`
lists them), or a file of your own: a whole model with any classes (`.keras`),
such as `train.py` saves, or weights for `--model` with ImageNet's 1000 classes.
By default it is the model's own, "imagenet" or "cifar10"; a model that has none
is untrained, and its answers mean nothing.
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
# Numbers of classes that are ImageNet's; ten may be those of anything.
IMAGENET = (1000, 11221, 21843)


def main():
    parser = argument_parser()
    args = parser.parse_args()
    try:
        model, named, evaluation = load_model(args.model, args.weights)
        # All of them before the first answer, in case one is missing.
        images = [
            keras_mixer.load_image(photo, model, **evaluation)
            for photo in args.photos
        ]
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    predictions = model.predict_on_batch(np.concatenate(images))
    for photo, scores in zip(args.photos, predictions, strict=True):
        print(f"{photo}:")
        for name, score in top_five(scores, named):
            print(f"{name} {100 * score:.1f} %")


def argument_parser():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument(
        "--model",
        choices=VARIANTS,
        default="MixerNano",
        metavar="NAME",
        help=" ".join(VARIANTS) + "; %(default)s",
    )
    parser.add_argument(
        "--weights", metavar="TAG_OR_FILE", help="such as imagenet_sam"
    )
    return parser


def load_model(name, weights):
    """A classifier, if its names are known, and how `load_image` feeds it."""
    if weights is not None and weights.endswith(".keras"):
        model = load_whole(weights)
        named = model.output_shape[1] in IMAGENET
        return model, named, {"crop_ratio": 1.0}  # as train.py cuts
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
        model = constructor(weights=weights, classes=record.classes or 1000)
        evaluation = {
            "crop_ratio": record.source.crop_ratio,
            "interpolation": record.source.interpolation,
        }
        return model, True, evaluation
    return constructor(weights=weights), True, {}


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


def top_five(scores, named):
    if named:
        (top,) = keras_mixer.mixer.decode_predictions(scores[None], top=5)
        return [(f"{wnid} {name}", score) for wnid, name, score in top]
    order = np.argsort(-scores, kind="stable")[:5]
    return [(f"class {index} ", scores[index]) for index in order]


if __name__ == "__main__":
    main()
