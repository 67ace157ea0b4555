"""The command `evaluate`: measures a model on images with labels."""

import dataclasses

import keras
import numpy as np

from keras_mixer.commands.images import load_images
from keras_mixer.commands.models import published
from keras_mixer.commands.models import published_record
from keras_mixer.commands.names import DEFAULT_MODEL
from keras_mixer.commands.trained import load_trained
from keras_mixer.commands.trained import settings_of
from keras_mixer.training.few_shot import few_shot
from keras_mixer.weights import catalog


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
    """Returns the accuracy of a model on test images.

    Args:
        run: Path of the folder of a training, or `None`.
        model: If `run` is `None`, the name of a constructor, by default
            "MixerNano".
        weights: Tag of its published weights.
        data: Path of a folder of images. Without `data` and `dataset` the
            images of the training are used.
        dataset: Name of a TFDS data set, instead of `data`.
        data_dir: Folder in which TFDS keeps its data sets.
        batch_size: Positive integer.
        shots: Integers, the numbers of images per class for the few-shot
            accuracy.

    Returns:
        A dict with `images`, their number; `accuracy`, if the model knows all
        their classes; and `few_shot`, `{shots: accuracy}`, if `shots` is not
        empty.

    Raises:
        ValueError: If no images are given, or the images have classes that the
            model does not know and `shots` is empty.
    """
    source = {"data": data, "dataset": dataset, "data_dir": data_dir}
    if run is None:
        trained, images = _published(model, weights, source)
    else:
        trained, images = _trained_here(run, model, weights, source)
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


def _published(model, weights, source):
    """Returns a model with published weights, and images for it."""
    model = model or DEFAULT_MODEL
    record = published_record(model, weights)
    size = catalog.image_size(record.variant)
    images = load_images(image_size=size, **source)
    return published(model, record, images.image_shape[-1]), images


def _trained_here(run, model, weights, source):
    """Returns the model of a training, and its images or the given ones."""
    trained = load_trained(run, model, weights)
    settings = settings_of(run)
    if (source["data"], source["dataset"]) == (None, None):
        source = {key: getattr(settings, key) for key in source}
    *size, channels = shape = trained.model.input_shape[1:]
    images = load_images(
        image_size=size,
        channels=channels,
        # Hold out the same images as in the training.
        seed=settings.seed,
        **source,
    )
    if images.image_shape != shape:
        raise ValueError(
            f"The model takes images of shape {shape}. "
            f"Received: images of shape {images.image_shape}"
        )
    return trained, images


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
    """Returns the list of names with the most names of `class_names`."""
    return max(names, key=lambda known: len(set(class_names) & set(known)))


def _accuracy_by_name(model, batches, class_names, known):
    """Returns the accuracy, where classes with the same name are one class.

    Args:
        model: A model that returns a score for each of `known`.
        batches: Batches of images and of one-hot labels of `class_names`.
        class_names: Names of the classes of the images, in any order.
        known: Names of the classes of the model. A name can occur twice, such
            as "crane" and "maillot" in ImageNet.
    """
    known, class_names = np.array(known), np.array(class_names)
    correct = []
    for images, labels in batches:
        predicted = known[np.argmax(model.predict_on_batch(images), axis=1)]
        correct.append(predicted == class_names[np.argmax(labels, axis=1)])
    return float(np.concatenate(correct).mean())
