"""The models that a command can name, published or trained."""

import inspect
import pathlib

import keras

from keras_mixer import training
from keras_mixer.labels import class_names
from keras_mixer.models.constructors import MODELS
from keras_mixer.weights import catalog


def record_of(settings):
    """The record of published weights that settings name, or `None`."""
    return catalog.find(variant_name(settings["model"]), settings["weights"])


def variant_name(model):
    return inspect.signature(MODELS[model]).parameters["name"].default


def default_weights(model):
    """The tag of the weights that a model is fine-tuned from by default.

    Raises:
        ValueError: If the model has no default; the error lists its tags.
    """
    tag = catalog.default_tag(variant_name(model))
    if tag is None:
        tags = [r.tag for r in catalog.list_weights(f"{variant_name(model)}.*")]
        raise ValueError(
            f"{model} has no default weights. Give `--weights`: "
            + (f"one of {tags}, or a file." if tags else "a file.")
        )
    return tag


def trained(run, model=None, weights=None, channels=3):
    """A model to evaluate or to predict with, and how to feed it.

    Args:
        run: Path of the folder of a training, or `None`.
        model: Otherwise the name of a constructor, by default "MixerNano".
        weights: Tag of its weights, by default as in `default_weights`.
        channels: Integer, of the images; published weights are brought to it.

    Returns:
        The model, which gives probabilities; the lists of names that its
        classes go by, the one to show first; and a dict with `crop_ratio` and
        `interpolation`.

    Raises:
        ValueError: If the training is not finished, or there are no such
            weights, or none with a head.
    """
    if run is not None:
        if (model, weights) != (None, None):
            raise ValueError(
                "Give `--run`, or `--model` and `--weights`, not both. "
                f"Received: run={run}, model={model}, weights={weights}"
            )
        record = training.read_run(run)
        file = pathlib.Path(run, training.MODEL_FILE)
        if not file.exists():
            raise ValueError(
                f"The training in '{run}' is not finished: there is no "
                f"{training.MODEL_FILE}. Start it again to go on with it."
            )
        settings = record["settings"]
        feeding = {k: settings[k] for k in ("crop_ratio", "interpolation")}
        names = [record["data"]["class_names"]]
        return keras.saving.load_model(file), names, feeding
    model = model or "MixerNano"
    weights = weights or default_weights(model)
    record = record_of({"model": model, "weights": weights})
    if record is None:
        raise ValueError(
            f"There are no published weights '{weights}' of {model}. "
            "`python -m keras_mixer weights` lists them; models that you have "
            "trained are the folder of their training."
        )
    feeding = {
        "crop_ratio": record.source.crop_ratio,
        "interpolation": record.source.interpolation,
    }
    if record.classes is None:
        raise ValueError(f"The weights '{record.name}' have no trained head.")
    size = catalog.image_size(variant_name(model))
    built = MODELS[model](
        weights=weights,
        classes=record.classes,
        input_shape=(size, size, channels),
    )
    wnids, names = map(list, zip(*class_names(record.classes), strict=True))
    # Numbers, which CIFAR-10 has for ids, would fit the digits of MNIST.
    known = [names] if wnids[0].isdecimal() else [names, wnids]
    return built, known, feeding
