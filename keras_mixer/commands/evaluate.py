"""What `evaluate` does: measures a model on images with labels."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_mixer import training
from keras_mixer.commands.images import load_images
from keras_mixer.commands.models import Trained
from keras_mixer.commands.models import published
from keras_mixer.commands.settings import Settings
from keras_mixer.training.few_shot import few_shot


def evaluate(
    *,
    run=None,
    model=None,
    weights=None,
    data=None,
    dataset=None,
    data_dir=None,
    batch_size=64,
    shots=(),
):
    """Accuracy of a model on the images to test on, and few-shot accuracies.

    Args:
        run: Path of the folder of a training, or `None`.
        model: Otherwise the name of a constructor, by default "MixerNano".
        weights: Tag of its published weights.
        data: Path of a folder of images. Without `data` and `dataset` the
            images of the training are taken.
        dataset: Or the name of a data set of TFDS.
        data_dir: Folder in which TFDS keeps its data sets.
        batch_size: Positive integer.
        shots: Integers, of how many images per class to fit a linear map.

    Returns:
        A dict: `images`, their number; `accuracy`, where the model knows all
        their classes; and `few_shot`, `{shots: accuracy}`, if there are any.

    Raises:
        ValueError: If there is nothing to evaluate on, or the images have
            classes that the model does not know and no shots are asked for.
    """
    trained = load_trained(run, model, weights)
    source = {"data": data, "dataset": dataset, "data_dir": data_dir}
    if run is not None:
        # With the seed of the training, what was held out is held out again.
        settings = _settings(run)
        source["seed"] = settings.seed
        if (data, dataset) == (None, None):
            source |= {key: getattr(settings, key) for key in source}
    *size, channels = trained.model.input_shape[1:]
    images = load_images(image_size=size, channels=channels, **source)
    if images.image_shape != trained.model.input_shape[1:]:
        if run is not None:
            raise ValueError(
                "The model takes images of shape "
                f"{trained.model.input_shape[1:]}. "
                f"Received: images of shape {images.image_shape}"
            )
        trained = load_trained(None, model, weights, images.image_shape[-1])
    batches = images.test(batch_size, **trained.evaluation)
    results = {"images": images.test_count}
    known = _names_of(images.class_names, trained.names)
    unknown = [name for name in images.class_names if name not in known]
    if not unknown:
        results["accuracy"] = _accuracy_by_name(
            trained.model, batches, images.class_names, known
        )
    elif not shots:
        raise ValueError(
            f"The images have classes that the model does not know: {unknown}. "
            f"It knows {len(known)} classes, such as {known[:5]}. Remove or "
            "rename these folders, or use `--few-shot N` to measure the "
            "model's features on them."
        )
    if shots:
        results["few_shot"] = _few_shot(trained, images, batch_size, shots)
    return results


def _settings(run):
    return Settings.from_record(training.read_run(run), run)


def load_trained(run, model=None, weights=None, channels=3):
    """The model of a training, or one with published weights.

    Args:
        run: Path of the folder of a training, or `None`.
        model: Otherwise as in `published`.
        weights: As in `published`.
        channels: As in `published`.

    Returns:
        A `Trained`.

    Raises:
        ValueError: If the training is not finished, or as in `published`.
    """
    if run is None:
        return published(model or "MixerNano", weights, channels)
    if (model, weights) != (None, None):
        raise ValueError(
            "Give `--run`, or `--model` and `--weights`, not both. "
            f"Received: run={run}, model={model}, weights={weights}"
        )
    settings = _settings(run)
    file = pathlib.Path(run, training.MODEL_FILE)
    if not file.exists():
        raise ValueError(
            f"The training in '{run}' is not finished: there is no "
            f"{training.MODEL_FILE}. Repeat its command to resume it."
        )
    names = training.read_run(run)["data"]["class_names"]
    return Trained(keras.saving.load_model(file), [names], settings.evaluation)


def _few_shot(trained, images, batch_size, shots):
    model = trained.model
    features = keras.Model(model.input, model.get_layer("avg_pool").output)
    train = dataclasses.replace(images, test_images=images.train_images)
    return few_shot(
        features,
        train.test(batch_size, **trained.evaluation),
        images.test(batch_size, **trained.evaluation),
        shots,
    )


def _names_of(class_names, names):
    """The one of several lists of class names that fits best."""
    return max(names, key=lambda known: len(set(class_names) & set(known)))


def _accuracy_by_name(model, batches, class_names, known):
    """The share of images whose most probable class has their class's name.

    Args:
        model: A model that gives a score for each of `known`.
        batches: Batches of images and of one-hot labels of `class_names`.
        class_names: Names of the classes of the images, in any order.
        known: Names of the classes of the model. Those that have the same
            name, as two cranes and two maillots of ImageNet, count as one.
    """
    known, class_names = np.array(known), np.array(class_names)
    correct = []
    for images, labels in batches:
        predicted = known[np.argmax(model.predict_on_batch(images), axis=1)]
        correct.append(predicted == class_names[np.argmax(labels, axis=1)])
    return float(np.concatenate(correct).mean())
