"""The command `evaluate`: measures a model on images with labels."""

import dataclasses
import pathlib

import keras

from keras_mixer import training
from keras_mixer.cli.images import load_images
from keras_mixer.cli.names import DEFAULT_MODEL
from keras_mixer.commands import reports
from keras_mixer.commands.confusion import Counter
from keras_mixer.commands.models import published
from keras_mixer.commands.models import published_record
from keras_mixer.commands.trained import check_best
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
    best=False,
    output=None,
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
        best: Boolean, whether to use the model of the best epoch of the
            training.
        output: Path of the folder for the report: a new or empty folder, or one
            with a report of the same model on the same images. The default for
            a training and its own images is `evaluation` in its folder, or
            `evaluation_best`. Otherwise, the report is not written.

    Returns:
        A dict with `images`, their number; `accuracy` and `report`, a `Report`,
        if the model knows all their classes; and `few_shot`, `{shots:
        accuracy}`, if `shots` is not empty. The caller writes the report.

    Raises:
        ValueError: If no images are given, or the images have classes that the
            model does not know and `shots` is empty, or the output is in use.
    """
    source = {"data": data, "dataset": dataset, "data_dir": data_dir}
    check_best(run, best)
    if run is not None and (data, dataset) == (None, None):
        settings = settings_of(run)
        source = {key: getattr(settings, key) for key in source}
        default = pathlib.Path(run, _default_name(best))
    else:
        default = None
    asked, output = output, output or default
    about = _about(run, model, weights, best, source, output)
    if output is not None:
        reports.check_folder(output, about)
    if run is None:
        trained, images = _published(model, weights, source)
    else:
        trained, images = _trained_here(run, model, weights, best, source)
    results = {"images": images.test_count}
    known = _names_of(images.class_names, trained.names)
    unknown = [name for name in images.class_names if name not in known]
    if not unknown:
        confusion = _confusion(trained, images, batch_size, known)
        results["accuracy"] = confusion.accuracy
        results["report"] = reports.Report(
            output, confusion, images.test_paths, about
        )
    elif not shots or asked is not None:
        raise ValueError(
            f"The images have classes that the model does not know: {unknown}. "
            f"It knows {len(known)} classes, such as {known[:5]}. Remove or "
            "rename these folders; or use `--few-shot N`, without `--output`, "
            "to measure the model's features on them."
        )
    if shots:
        results["few_shot"] = _few_shot(trained, images, batch_size, shots)
    return results


def _default_name(best):
    return "evaluation_best" if best else "evaluation"


def _about(run, model, weights, best, source, output):
    """Returns a dict that names the model and the images of a report."""
    if run is None:
        record = published_record(model or DEFAULT_MODEL, weights)
        about = {"weights": record.name}
    else:
        run = pathlib.Path(run).resolve()
        # A folder of a training can be moved together with its report.
        is_inside = run in pathlib.Path(output or ".").resolve().parents
        file = training.BEST_FILE if best else training.MODEL_FILE
        about = {"run": "this one" if is_inside else str(run), "file": file}
    folder = source["data"]
    data = source["dataset"] if folder is None else pathlib.Path(folder)
    return {**about, "data": str(data if folder is None else data.resolve())}


def _confusion(trained, images, batch_size, known):
    """Returns the `Confusion` of the model on the test images."""
    counter = Counter(images.class_names, known)
    for pixels, labels in images.test(batch_size, **trained.evaluation):
        # The OpenVINO backend of Keras does not accept TensorFlow's tensors.
        pixels = pixels.numpy()
        probabilities = trained.model.predict_on_batch(pixels)
        counter.add(pixels, labels.numpy(), probabilities)
    return counter.result()


def _published(model, weights, source):
    """Returns a model with published weights, and images for it."""
    model = model or DEFAULT_MODEL
    record = published_record(model, weights)
    size = catalog.image_size(record.variant)
    images = load_images(image_size=size, **source)
    return published(model, record, images.image_shape[-1]), images


def _trained_here(run, model, weights, best, source):
    """Returns the model of a training, and images for it."""
    trained = load_trained(run, model, weights, best)
    *size, channels = shape = trained.model.input_shape[1:]
    images = load_images(
        image_size=size,
        channels=channels,
        # Hold out the same images as in the training.
        seed=settings_of(run).seed,
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
