"""What `evaluate` does: measures a model on images with labels."""

import dataclasses

import keras
import numpy as np

from keras_mixer import training
from keras_mixer.commands.images import load_images
from keras_mixer.commands.models import trained
from keras_mixer.training.few_shot import few_shot


def evaluate(settings, shots=()):
    """Accuracy of a model on the images to test on, and few-shot accuracies.

    Args:
        settings: Dict with `run`, or `model` and `weights`; and with `data` or
            `dataset`, else the images of the training are taken.
        shots: Integers, of how many images per class to fit a linear map.

    Returns:
        A dict: `accuracy`, where the classes are those of the model, and
        `few_shot` for each of the shots.

    Raises:
        ValueError: If there is nothing to evaluate on, or the images have other
            classes and no shots are asked for.
    """
    model, names, feeding = trained(
        settings["run"], settings["model"], settings["weights"]
    )
    source = {"seed": 0, **settings}
    if settings["run"] is not None:
        # With the seed of the training, what was held out is held out again.
        source = training.read_run(settings["run"])["settings"]
        if (settings["data"], settings["dataset"]) != (None, None):
            source = {**source, **settings}
    *size, channels = model.input_shape[1:]
    images = load_images({**source, "image_size": size, "channels": channels})
    if images.image_shape != model.input_shape[1:]:
        if settings["run"] is not None:
            raise ValueError(
                f"The model takes images of shape {model.input_shape[1:]}. "
                f"Received: images of shape {images.image_shape}"
            )
        model, *_ = trained(
            None,
            settings["model"],
            settings["weights"],
            channels=images.image_shape[-1],
        )
    batches = images.test(settings["batch_size"], **feeding)
    results = {"images": images.test_count}
    known = _names_of(images.class_names, names)
    unknown = [name for name in images.class_names if name not in known]
    if not unknown:
        results["accuracy"] = _accuracy_by_name(
            model, batches, images.class_names, known
        )
    elif not shots:
        raise ValueError(
            f"The images have classes that the model does not know: {unknown}. "
            f"It knows {len(known)} classes, such as {known[:5]}. Remove or "
            "rename these folders, or use `--few-shot N` to measure the "
            "model's features on them."
        )
    if shots:
        features = keras.Model(model.input, model.get_layer("avg_pool").output)
        train = dataclasses.replace(images, test_images=images.train_images)
        train = train.test(settings["batch_size"], **feeding)
        results["few_shot"] = few_shot(features, train, batches, shots)
    return results


def _names_of(class_names, names):
    """The one of several lists of class names that fits best."""
    return max(names, key=lambda known: len(set(class_names) & set(known)))


def accuracy(model, batches):
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    return model.evaluate(batches, verbose=0, return_dict=True)["accuracy"]


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
