"""Training in a folder: what was asked for, what happened, what came out.

The loop is `model.fit`, with Keras's own callbacks for logs and averages of
weights. Around it is what a training of hours or days needs: a record from
which it can be repeated, checkpoints from which it goes on, an end with a
reason when the loss is lost, and curves. A folder belongs to one training:
started again with the same settings it goes on, with others it is left alone.

`run.json` is written first, in full or not at all; everything else in the
folder follows from it.
"""

import contextlib
import csv
import importlib.util
import json
import logging
import math
import os
import pathlib
import platform
import sys

import keras
import numpy as np

from keras_mixer.checking import check_real
from keras_mixer.checkpoints import Checkpoints
from keras_mixer.decoding import import_tensorflow
from keras_mixer.distributing import Devices
from keras_mixer.pipeline import mapped

logger = logging.getLogger("keras_mixer")

ONE_DEVICE = Devices("none")

RUN_FILE = "run.json"
LOG_FILE = "log.csv"
CURVES_FILE = "curves.png"
MODEL_FILE = "model.keras"
CHECKPOINTS = "checkpoints"

# Facts that the weights do not depend on, and that versions of this library
# record differently.
NOT_COMPARED = ("skipped", "validation_count")


def open_run(folder, settings, facts=None, process=0, defaults=None):
    """Makes the folder of a training, or finds it with the same settings.

    Args:
        folder: Path; new, empty, or of a training with these settings.
        settings: Dict of what JSON can hold, all that the training depends on.
        facts: Dict of dicts that follow from them and from the data. They must
            be the same too, except "skipped" and "validation_count", which the
            weights do not depend on.
        process: Integer, which of several processes this is; 0 writes.
        defaults: Dict of the values that settings had in trainings whose
            record does not have them, written by an earlier version.

    Returns:
        The path of the folder.

    Raises:
        ValueError: If the folder holds something else, or was begun with other
            settings, other data or another backend. Nothing is changed then.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = training.open_run(pathlib.Path(folder, "a"), {"seed": 0})
    ...     training.read_run(run)["settings"]
    {'seed': 0}
    """
    folder = pathlib.Path(folder)
    facts = facts or {}
    if (folder / RUN_FILE).exists():
        _check_same(folder, {"settings": settings, **facts}, defaults or {})
        return folder
    if process != 0:
        return folder
    if folder.exists() and (not folder.is_dir() or _files_of_others(folder)):
        raise ValueError(
            f"'{folder}' holds something else than a training. Give the path "
            "of a new folder, or of an empty one."
        )
    record = {"settings": settings, **facts, "environment": _environment()}
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / RUN_FILE, record)
    return folder


def _files_of_others(folder):
    """What is in a folder but for the first file of a training, unfinished."""
    return [f for f in folder.iterdir() if f.name != _part(RUN_FILE).name]


def _check_same(folder, asked, defaults):
    record, asked = read_run(folder), json.loads(json.dumps(asked))
    record["settings"] = {**defaults, **record.get("settings", {})}
    asked["environment"] = {"backend": keras.backend.backend()}
    differ = [
        f"{key}: {record.get(part, {}).get(key)!r} there, {value!r} now"
        for part, values in asked.items()
        for key, value in values.items()
        if key not in NOT_COMPARED and record.get(part, {}).get(key) != value
    ]
    if differ:
        raise ValueError(
            f"'{folder}' belongs to another training. Give another folder, or "
            "what that one had to go on with it: " + "; ".join(differ)
        )


def _environment():
    packages = ("keras", "keras_mixer", "numpy", keras.backend.backend())
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "backend": keras.backend.backend(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(name):
    """The version of an imported package.

    The metadata of installed packages is not used: a checkout on `PYTHONPATH`
    has none, or another version's, and TensorFlow's may be under another name,
    such as `tensorflow-cpu`.
    """
    return getattr(sys.modules.get(name), "__version__", "unknown")


def read_run(folder):
    """The record of a training, a dict; `finished` has what came out.

    Args:
        folder: Path of the folder of a training.

    Raises:
        ValueError: If it is none.

    Example:

    >>> from keras_mixer import training
    >>> training.read_run("nowhere")
    Traceback (most recent call last):
    ValueError: 'nowhere' is not the folder of a training: it has no run.json.
    """
    path = pathlib.Path(folder, RUN_FILE)
    if not path.is_file():
        raise ValueError(
            f"'{folder}' is not the folder of a training: it has no {RUN_FILE}."
        )
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"'{path}' is damaged ({error}). It is needed to go on with the "
            "training: restore it, or begin in another folder."
        ) from error


def _write_json(path, content):
    part = _part(path)
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _part(path):
    """What a file is called until it is whole."""
    return pathlib.Path(path).with_suffix(".part")


def fit(
    model,
    images,
    augmentation,
    folder,
    *,
    batch_size,
    epochs,
    seed=0,
    validation_data=None,
    devices=ONE_DEVICE,
    callbacks=(),
    class_weights=None,
    verbose="auto",
):
    """Trains a compiled model in a folder, or goes on where it was stopped.

    After each epoch there is a checkpoint, of which the last two are kept. A
    training that goes on has the weights, optimizer, averages, random numbers
    and images of one that was never stopped.

    Args:
        model: A Keras model, compiled, that gives logits.
        images: What `keras_mixer.data.load_folder` or `load_tfds` returns.
        augmentation: A `recipes.Augmentation`, or `None`.
        folder: Path of the folder of the training, made by `open_run`.
        batch_size: Positive integer, images in a step, of all devices and
            processes together.
        epochs: Positive integer.
        seed: Integer, of the order of the images and of their augmentation.
        validation_data: Dataset of images and labels to evaluate on after each
            epoch, by default `images.validation(batch_size)`; on many devices
            without the last, smaller batch.
        devices: What `distributing.devices` opened.
        callbacks: Further Keras callbacks. What they keep in Python is not in
            the checkpoints, and begins anew when the training is resumed. A
            training that a callback stopped early is resumed by the next call.
        class_weights: Optional dict from the name or the index of a class to
            its weight, 1 for other classes; or `"balanced"`, for what
            `balanced_class_weights` returns. The loss of an image is multiplied
            by the weight of its class. A mixed image has the mean of the
            weights of its classes, weighted as its label.
        verbose: What Keras takes: 0 for silence.

    Returns:
        What `read_log` returns.

    Raises:
        FloatingPointError: If the loss becomes NaN or infinite.
        OSError: If a checkpoint cannot be written.
        ValueError: If the batch size does not fit the images or the devices,
            a class in `class_weights` is unknown or has a wrong weight, the
            metrics are not those of the training to resume, or every
            checkpoint is damaged.
        TypeError: If an argument has the wrong type.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> import keras_mixer
    >>> from keras_mixer import data, training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     photos, run = pathlib.Path(folder, "p"), pathlib.Path(folder, "r")
    ...     for i, color in enumerate(["teal", "navy"] * 5):
    ...         path = photos / color / f"{i}.png"
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("RGB", (8, 8), color).save(path)
    ...     images = data.load_folder(photos, image_size=8)
    ...     model = keras_mixer.Mixer(
    ...         patch_size=4, num_blocks=1, hidden_dim=8, tokens_mlp_dim=8,
    ...         channels_mlp_dim=8, input_shape=(8, 8, 3), classes=2,
    ...         classifier_activation=None)
    ...     recipe = keras_mixer.recipes.RECIPES["nano.cifar10"]
    ...     model.compile(**keras_mixer.recipes.compile_options(recipe, 4))
    ...     log = training.fit(
    ...         model, images, None, training.open_run(run, {}),
    ...         batch_size=4, epochs=2, verbose=0)
    >>> [row["epoch"] for row in log]
    [0, 1]
    """
    class_weights = _list_of_weights(class_weights, images)
    _check_callbacks(callbacks)
    folder = pathlib.Path(folder)
    devices.local_batch_size(batch_size)
    steps = images.steps_per_epoch(batch_size)
    writes = devices.process == 0
    checkpoints = Checkpoints(folder / CHECKPOINTS, writes=writes)
    done, last = checkpoints.last()
    # Before they load it, which they do together.
    devices.check_equal("epochs that are done", done)
    checkpoints.load(model, last)
    averages = any(each.use_ema for each in _optimizers(model.optimizer))
    if done >= epochs:
        # A checkpoint has the weights, and beside them their averages.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        if averages:
            _unshare(model)
        return read_log(folder)
    added = [StopOnLostLoss()]
    if averages:
        added.append(keras.callbacks.SwapEMAWeights())
    # In front of the checkpoint, which saves what they change.
    added += callbacks
    log = keras.callbacks.CSVLogger(folder / LOG_FILE, append=True)
    if writes:
        _trim_log(folder / LOG_FILE, done)
        added += [_SameMetrics(folder), log]
        if _is_installed("tensorboard", "Logs for TensorBoard"):
            added.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    # Behind the log: what is in a checkpoint has been logged, and what was
    # logged without one is done again.
    added.append(checkpoints)
    with contextlib.ExitStack() as stack:
        # Keras leaves it open where the training ends with an error.
        stack.callback(lambda: log.csv_file and log.csv_file.close())
        batches = images.train(
            augmentation,
            batch_size,
            seed=seed,
            start=done * steps,
            hosts=devices.processes,
            host=devices.process,
        )
        model.fit(
            _weighted(batches, class_weights),
            validation_data=validation_data
            or images.validation(
                batch_size, drop_remainder=devices.replicas > 1
            ),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the images come in an order of their own
            callbacks=added,
            verbose=verbose if writes else 0,
        )
    if averages:
        _unshare(model)
    return read_log(folder)


def _unshare(model):
    """Gives the weights of a model memory of their own.

    At the end of `fit`, Keras 3.15 assigns the averages to the weights. On JAX
    both are then the same arrays, and the next `fit` fails: "Attempt to donate
    the same buffer twice". We found no upstream issue. Delete this function
    when `test_a_model_with_averaged_weights_is_trained_twice` passes without
    it.
    """
    for variable in model.trainable_variables:
        variable.assign(keras.ops.copy(variable))


def _check_callbacks(callbacks):
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must be a list of Keras callbacks. "
                f"Received: {callback!r} (of type {type(callback).__name__})"
            )


class _SameMetrics(keras.callbacks.Callback):
    """Ends a resumed training that measures something else than its log.

    `CSVLogger` would append the values under the wrong names. Keras does not
    know the names of the metrics before the first epoch is over.
    """

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch, logs=None):
        rows = read_log(self._folder)
        if rows and rows[0].keys() - {"epoch"} != logs.keys():
            raise ValueError(
                "A training must be resumed with the same metrics: "
                f"{sorted(rows[0].keys() - {'epoch'})}. "
                f"Received: {sorted(logs)}"
            )


def _list_of_weights(class_weights, images):
    """The weight of each class in a list, or `None`."""
    if class_weights is None:
        return None
    names = list(images.class_names)
    if isinstance(class_weights, str) and class_weights == "balanced":
        class_weights = balanced_class_weights(images)
    if not isinstance(class_weights, dict):
        raise TypeError(
            '`class_weights` must be "balanced", or a dict of the weights of '
            f"classes. Received: class_weights={class_weights!r} "
            f"(of type {type(class_weights).__name__})"
        )
    weights = {}
    for key, weight in class_weights.items():
        index = names.index(key) if key in names else key
        # `True` is an integer for Python.
        if isinstance(index, bool) or index not in range(len(names)):
            raise ValueError(
                "The keys of `class_weights` must be names of classes, or "
                f"indices below {len(names)}. Received: {key!r} for {names}"
            )
        if index in weights:
            raise ValueError(
                "`class_weights` must have one weight for a class. Received: "
                f"several for {names[index]!r}, which is class {index}"
            )
        check_real(f"class_weights[{key!r}]", weight)
        if not 0 <= weight < math.inf:
            raise ValueError(
                "`class_weights` must be finite and not negative. "
                f"Received: {weight} for {key!r}"
            )
        weights[index] = float(weight)
    return [weights.get(index, 1.0) for index in range(len(names))]


def _weighted(batches, weights):
    """Adds the weight of each image to batches of images and labels."""
    if weights is None:
        return batches
    tf = import_tensorflow()
    return mapped(
        batches,
        lambda images, labels: (
            images,
            labels,
            tf.linalg.matvec(labels, weights),
        ),
        1,
    )


def balanced_class_weights(images):
    """Weights with which all classes count the same in the loss.

    The weight of a class is the number of training images, divided by the
    number of classes and by the number of images of this class.

    Source: `sklearn.utils.class_weight.compute_class_weight`, "balanced".

    Args:
        images: What `keras_mixer.data.load_folder` or `load_tfds` returns.

    Returns:
        A dict `{class name: weight}`, for the `class_weights` of `fit`.

    Raises:
        ValueError: If a class has no image to train on.

    Example:

    >>> import tensorflow as tf
    >>> from keras_mixer import pipeline, training
    >>> def read(index):
    ...     return tf.zeros((8, 8, 3), "uint8"), tf.cast(index > 2, "int32")
    >>> part = pipeline.Images(4, read, decoded=True)
    >>> colors = pipeline.Data(
    ...     "colors", ("navy", "teal"), (8, 8, 3), (), part, part)
    >>> weights = training.balanced_class_weights(colors)
    >>> {name: round(weight, 3) for name, weight in weights.items()}
    {'navy': 0.667, 'teal': 2.0}
    """
    tf = import_tensorflow()
    labels = mapped(
        tf.data.Dataset.range(images.train_count),
        lambda index: images.train_images.read(index)[1],
    )
    names = images.class_names
    counts = np.bincount(list(labels.as_numpy_iterator()), minlength=len(names))
    if not counts.all():
        missing = [names[i] for i in np.flatnonzero(counts == 0)]
        raise ValueError(
            "Every class must have an image to train on. "
            f"Received: none for {missing}"
        )
    return {
        name: float(images.train_count / (len(names) * count))
        for name, count in zip(names, counts, strict=True)
    }


def _is_installed(name, use):
    if importlib.util.find_spec(name) is not None:
        return True
    logger.warning(
        "%s are left out: %s is not installed. Install it with "
        "`pip install keras_mixer[train]`.",
        use,
        name,
    )
    return False


class StopOnLostLoss(keras.callbacks.Callback):
    """Ends a training whose loss is NaN or infinite, with an error.

    Keras's `TerminateOnNaN` ends it as if it were finished. The checkpoints of
    the epochs before stay.

    Source: this library.

    Raises:
        FloatingPointError: In `model.fit`, with the step and the learning rate.

    Example:

    >>> import keras
    >>> from keras_mixer.training import StopOnLostLoss
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(1e30), "mse")
    >>> x, y = keras.ops.ones((8, 1)), keras.ops.zeros((8, 1))
    >>> try:
    ...     model.fit(x, y, 2, 9, callbacks=[StopOnLostLoss()], verbose=0)
    ... except FloatingPointError as error:
    ...     print(str(error)[:22])
    The loss is not finite
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._step, self._loss = epoch, 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        # One step late: to look at the loss of this step would wait for the
        # device. It is the mean of the epoch so far, so it stays not finite.
        self._check()
        self._step, self._loss = batch + 1, logs["loss"]

    def on_epoch_end(self, epoch, logs=None):
        self._check()

    def _check(self):
        loss = float(self._loss)
        if math.isfinite(loss):
            return
        # Counted here: an optimizer counts updates of the weights, which are
        # fewer than steps where gradients are accumulated.
        raise FloatingPointError(
            f"The loss is not finite ({loss}) at step {self._step} of epoch "
            f"{self._epoch + 1}, with a learning rate of "
            f"{learning_rate(self.model.optimizer):.3g}. Use a smaller "
            "learning rate, a longer warm-up or `clip_norm`. The training is "
            "resumed from its last checkpoint."
        )


def learning_rate(optimizer):
    """The learning rate of an optimizer; the largest of several.

    Args:
        optimizer: A Keras optimizer.

    Example:

    >>> import keras
    >>> from keras_mixer import training
    >>> training.learning_rate(keras.optimizers.SGD(0.5))
    0.5
    """
    return max(float(each.learning_rate) for each in _optimizers(optimizer))


def _optimizers(optimizer):
    """Those within an optimizer, of several or of scaled losses; or itself."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(optimizer, "optimizers", [optimizer])


def read_log(folder):
    """What was measured after each epoch.

    Args:
        folder: Path of the folder of a training.

    Returns:
        A list of dicts with `epoch`, from 0, `loss`, `val_loss` and the
        metrics, such as `accuracy` and `val_accuracy`; empty before the first
        epoch is over.

    Example:

    >>> from keras_mixer import training
    >>> training.read_log("nowhere")
    []
    """
    path = pathlib.Path(folder, LOG_FILE)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {"epoch": int(row.pop("epoch"))}
            | {key: float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _trim_log(path, epochs):
    """Removes what is in the log beyond the checkpoint to go on from."""
    if not epochs or not path.exists():
        path.unlink(missing_ok=True)
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    # A process that is killed may leave half a line.
    whole = [line for line in lines if len(line) == len(lines[0])]
    kept = [line for line in whole[1:] if int(line[0]) < epochs]
    part = _part(path)
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([lines[0], *kept])
    part.replace(path)


def save_model(folder, model):
    """Saves the model of a training, whole or not at all.

    Args:
        folder: Path of the folder of a training.
        model: The trained model, which gives logits of shape `(batch,
            classes)`; the one that is saved gives probabilities, and is not
            compiled.

    Raises:
        OSError: If it cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_mixer
    >>> from keras_mixer import training
    >>> model = keras_mixer.MixerNano(
    ...     weights=None, classifier_activation=None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training.save_model(folder, model)
    ...     [path.name for path in pathlib.Path(folder).iterdir()]
    ['model.keras']
    """
    folder = pathlib.Path(folder)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")
    saved = keras.Model(
        model.input, probabilities(model.output), name=model.name
    )
    part = folder / f"unfinished_{MODEL_FILE}"
    saved.save(part)
    part.replace(folder / MODEL_FILE)


def finish(folder, results):
    """Draws the curves of a training, and notes what came out.

    Args:
        folder: Path of the folder of a training.
        results: Dict of what JSON can hold, for `finished` in `run.json`.

    Raises:
        ValueError: If it is not the folder of a training.
        OSError: If a file cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = training.open_run(pathlib.Path(folder, "a"), {"seed": 0})
    ...     training.finish(run, {"accuracy": 0.9})
    ...     training.read_run(run)["finished"]
    {'accuracy': 0.9}
    """
    folder = pathlib.Path(folder)
    if _is_installed("matplotlib", "Curves"):
        plot(read_log(folder), folder / CURVES_FILE)
    record = {**read_run(folder), "finished": results}
    _write_json(folder / RUN_FILE, record)


def plot(log, path):
    """Draws the loss, and the accuracy if it was measured, over the epochs.

    Args:
        log: What `read_log` returns: a dict for each epoch.
        path: The PNG to write.

    Raises:
        OSError: If it cannot be written.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_mixer import training
    >>> row = {"loss": 1, "val_loss": 1, "accuracy": 0, "val_accuracy": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "curves.png")
    ...     training.plot([{"epoch": epoch, **row} for epoch in (0, 1)], path)
    ...     path.exists()
    True
    """
    from matplotlib.figure import Figure

    curves = [("loss", "loss: cross-entropy [nats]", 1)]
    if log and "accuracy" in log[0]:
        curves.append(("accuracy", "accuracy [%]", 100))
    figure = Figure((4.5 * len(curves), 4), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    epochs = [row["epoch"] + 1 for row in log]
    for axes, (key, label, unit) in zip(panels, curves, strict=True):
        for prefix, name in (("", "training"), ("val_", "validation")):
            values = [unit * row[prefix + key] for row in log]
            axes.plot(epochs, values, ".-", label=name)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, len(epochs) + 1))
        axes.locator_params(axis="x", integer=True)
        axes.legend()
    figure.savefig(path, dpi=120)
