"""`model.fit` in the folder of a training.

The loop and most callbacks are Keras's. Added are the checkpoints from which a
training is resumed, and an error when the loss is not finite.
"""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_mixer.data.batches import Data
from keras_mixer.distributing.devices import Devices
from keras_mixer.optional import is_installed
from keras_mixer.training.callbacks import SameMetrics
from keras_mixer.training.callbacks import StopOnLostLoss
from keras_mixer.training.callbacks import optimizers_of
from keras_mixer.training.checkpoints import Checkpoints
from keras_mixer.training.class_weights import list_of_weights
from keras_mixer.training.class_weights import weighted
from keras_mixer.training.runs import CHECKPOINTS
from keras_mixer.training.runs import LOG_FILE
from keras_mixer.training.runs import read_log
from keras_mixer.training.runs import trim_log
from keras_mixer.types import Path

ONE_DEVICE = Devices("none")


def fit(
    model: keras.Model,
    images: Data,
    augmentation: Any,
    folder: Path,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    validation_data: Any = None,
    devices: Devices = ONE_DEVICE,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    class_weights: dict[str | int, float] | str | None = None,
    verbose: int | str = "auto",
) -> list[dict[str, float]]:
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
    class_weights = list_of_weights(class_weights, images)
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
    averages = any(each.use_ema for each in optimizers_of(model.optimizer))
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
        trim_log(folder / LOG_FILE, done)
        added += [SameMetrics(folder), log]
        if is_installed("tensorboard"):
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
            weighted(batches, class_weights),
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
